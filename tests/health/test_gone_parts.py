"""What iterations share and is gone is named by `verify` and `status`, with the command that makes it again."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import activedpo, all_outputs, done, on, refused


@pytest.fixture
def pooled(new_run: Path, prompts_file: Path, tmp_path: Path) -> Path:
    """A run whose first features are of responses that were made elsewhere, in `given.jsonl` beside it."""
    prompts = [json.loads(line)["prompt"] for line in prompts_file.read_text().splitlines()]
    rows = [{"prompt": prompt, "responses": [f"It is {number}" for number in range(3)]} for prompt in prompts]
    (tmp_path / "given.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done(*on(new_run, "generate"), "--responses", tmp_path / "given.jsonl", "--quiet")
    done(*on(new_run, "featurize"), "--quiet")
    return new_run


def suggested(run: Path) -> list[str]:
    """The words of the command that `status` suggests."""
    return shlex.split(json.loads(done(*on(run, "status"), "--json").stdout)["next"])


def problems(run: Path) -> list[tuple[str, str, str]]:
    """What `verify` names: file, words and repair."""
    found = json.loads(activedpo(*on(run, "verify"), "--json").stdout)["problems"]
    return [(problem["file"], problem["what"], problem["repair"]) for problem in found]


@pytest.mark.parametrize("is_emptied", [False, True])
def test_a_pool_that_is_gone_is_named_and_made_again(pooled: Path, is_emptied: bool) -> None:
    made = all_outputs(pooled)
    shutil.rmtree(pooled / "pool")
    if is_emptied:
        (pooled / "pool").mkdir()
    refused(4, *on(pooled, "verify"))
    ((path, what, repair),) = problems(pooled)
    assert path == "pool/manifest.json"
    assert "`featurize` of iteration 1 was made with it" in what
    assert "pool is damaged: it is gone" in done(*on(pooled, "status")).stdout
    command = suggested(pooled)
    assert shlex.split(repair) == command
    assert repair in refused(4, *on(pooled, "select"))
    done(*command[1:])
    assert all_outputs(pooled) == made
    assert "is sound" in done(*on(pooled, "verify")).stdout


def test_an_evaluation_of_the_initial_model_that_is_gone_is_named_and_made_again(finished: Path) -> None:
    made = all_outputs(finished)
    shutil.rmtree(finished / "reference" / "evaluate")
    refused(4, *on(finished, "verify"))
    ((path, what, repair),) = problems(finished)
    assert path == "reference/evaluate/manifest.json"
    assert "`evaluate` of iteration 1 was made with it" in what
    assert "reference/evaluate is damaged: it is gone" in done(*on(finished, "status")).stdout
    assert shlex.split(repair) == suggested(finished)
    done(*shlex.split(repair)[1:])
    assert all_outputs(finished) == made
    assert "is sound" in done(*on(finished, "verify")).stdout


def test_what_was_never_needed_is_not_missed(new_run: Path) -> None:
    """An initial adapter is drawn again unasked; without finished stages nothing needs the others."""
    done(*on(new_run, "generate"), "--quiet")
    assert "is sound" in done(*on(new_run, "verify")).stdout
    assert suggested(new_run)[1] == "featurize"


def test_a_pool_whose_file_is_gone_too_asks_for_the_file(pooled: Path, tmp_path: Path) -> None:
    shutil.rmtree(pooled / "pool")
    (tmp_path / "given.jsonl").rename(tmp_path / "moved.jsonl")
    command = suggested(pooled)
    assert command[-2:] == ["--responses", "FILE"]
    done(*command[1:-1], tmp_path / "moved.jsonl")
    assert suggested(pooled)[1] == "select"
