"""Whatever is gone from a run, `status` and `verify` agree on whether it is sound, and no look ends in a surprise."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, on
from report_page import draw_quickly

SOUND = ("complete", "missing", "partial", "deleted to save space", "not part of this run")
MAY_GO = (
    "iter-001/evaluate",
    "iter-002/evaluate",
    "iter-001/featurize",
    "iter-002/featurize",
    "reference/initial-adapter",
    "report",
    "iter-002",
)
"""Folders that can be deleted without anything else being the worse for it."""
READ = (
    "iter-001/generate/prompts.json",
    "iter-001/generate/responses-00001.jsonl",
    "iter-001/featurize/rows.jsonl",
    "iter-001/featurize/features-00000.safetensors",
    "iter-001/select/selection.jsonl",
    "iter-001/label/outcomes.jsonl",
)
"""Files that looks read."""


@pytest.fixture(scope="module")
def run(finished_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two iterations and their report; what a test takes away, it puts back."""
    run = Path(shutil.copytree(finished_original, tmp_path_factory.mktemp("agreement") / "finished"))
    with pytest.MonkeyPatch.context() as patch:
        draw_quickly(patch)
        done("report", run)
    return run


@contextmanager
def without(run: Path, place: Path) -> Iterator[None]:
    kept = run.parent / "kept"
    place.rename(kept)
    try:
        yield
    finally:
        kept.rename(place)


def is_sound_by_status(run: Path) -> bool:
    result = activedpo("status", "--run", run, "--json")
    if result.exit_code != 0:
        assert result.exit_code == 4
        return False
    found = json.loads(result.stdout)
    states = {status["state"] for row in found["iterations"] for status in row["stages"].values()}
    return not found["damaged"] and states <= set(SOUND)


def is_sound_by_verify(run: Path) -> bool:
    result = activedpo("verify", "--run", run, "--json")
    is_sound = result.exit_code == 0
    assert result.exit_code in (0, 4)
    assert not result.stdout or json.loads(result.stdout)["sound"] == is_sound
    return is_sound


def test_a_folder_that_is_gone(run: Path) -> None:
    for place in [path for path in sorted([*run.glob("[!.]*"), *run.glob("[!.]*/*")]) if path.is_dir()]:
        name = place.relative_to(run).as_posix()
        with without(run, place):
            sound = is_sound_by_status(run), is_sound_by_verify(run)
        assert sound == (name in MAY_GO or name == "compare",) * 2, name


def test_a_file_that_is_gone(run: Path) -> None:
    """One of each kind: two iterations have the same, and so have two units."""
    seen = set()
    for place in [path for path in sorted(run.rglob("*.*")) if path.is_file() and ".locks" not in path.parts]:
        kind = (*place.relative_to(run).parts[1 if "iter" in place.parts[-3] else 0 :], place.suffix)
        kind = tuple(part for part in kind if not part.startswith(("iter-", "responses-", "features-", "figures")))
        if kind in seen or "figures" in place.parts:
            continue
        seen.add(kind)
        with without(run, place):
            assert is_sound_by_status(run) == is_sound_by_verify(run), place


@pytest.mark.usefixtures("blank_figures")
def test_looking_at_an_iteration_that_lacks_something(run: Path) -> None:
    """Exit code 0 or 4, and nothing unforeseen: `activedpo` asserts the latter."""
    pair = json.loads((run / "iter-001/select/selection.jsonl").read_text().splitlines()[0])["pair_id"]
    looks = (
        ("show", "--iteration", 1),
        ("show", pair, "--no-tokens"),
        ("show", "--why", pair),
        ("show", "features", "--iteration", 1),
        ("compare", "random", "--iteration", 1, "--budget", 2),
    )
    names = ("prompts.jsonl", "reference", "iter-001", *(f"iter-001/{stage}" for stage in STAGES), *READ)
    for place in [run / name for name in names]:
        with without(run, place):
            codes = [activedpo(*words, "--run", run).exit_code for words in looks]
            shutil.rmtree(run / "compare", ignore_errors=True)
        assert set(codes) <= {0, 4}, (place, codes)


def test_a_comparison_reads_all_responses_or_says_which_are_gone(run: Path) -> None:
    with without(run, run / "iter-001/generate/responses-00001.jsonl"):
        said = activedpo("compare", "random", "--run", run, "--iteration", 1, "--budget", 2)
    assert said.exit_code == 4
    assert "responses-00001.jsonl" in said.stderr


def test_a_report_without_the_record_of_the_weights(run: Path) -> None:
    with without(run, run / "reference/base.json"):
        result = activedpo("report", run)
    assert result.exit_code == 4
    assert "base.json" in result.stderr


def test_the_command_that_verify_names_makes_a_deleted_stage_again(finished: Path) -> None:
    """To the same bytes, so that all that was made from it stands again."""
    for stage in ("generate", "select"):
        shutil.rmtree(finished / "iter-001" / stage)
        found = json.loads(activedpo("verify", "--run", finished, "--json").stdout)["problems"]
        assert [(row["file"], row["kind"]) for row in found] == [(f"iter-001/{stage}/manifest.json", "missing")]
        assert found[0]["repair"] == f"activedpo {stage} --run {finished} --iteration 1"
        done(*found[0]["repair"].split()[1:], "--quiet")
        assert is_sound_by_status(finished)
        assert is_sound_by_verify(finished)


def test_an_iteration_that_is_gone_is_the_next_to_be_made(run: Path) -> None:
    with without(run, run / "iter-001"):
        found = json.loads(done(*on(run, "status"), "--json").stdout)
    assert [row["iteration"] for row in found["iterations"]] == [1, 2]
    assert found["next"] == f"activedpo generate --run {run} --iteration 1"


def test_the_next_command_keeps_answers_whose_record_is_gone(finished: Path) -> None:
    folder = finished / "iter-002/label"
    (folder / "manifest.json").unlink()
    answers = (folder / "labels.jsonl").read_bytes()
    following = json.loads(done(*on(finished, "status"), "--json").stdout)["next"]
    assert following == f"activedpo label --run {finished} --iteration 2 --rebuild"
    done(*following.split()[1:])
    assert (folder / "labels.jsonl").read_bytes() == answers
    assert is_sound_by_status(finished)
