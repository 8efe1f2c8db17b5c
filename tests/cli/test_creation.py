"""Making a run: by whom, from what, and what is said when it is there already."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, done, manifest, on, refused, snapshot
from small_runs import SMALL

from activedpo_cli.base.presets import read_preset
from activedpo_cli.run import create
from activedpo_cli.store.run import Run

HOLD = (
    "import sys; from pathlib import Path; from activedpo_cli.store.lock import exclusive\n"
    "with exclusive(Path(sys.argv[1]), 'x'): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def first_by_another(monkeypatch: pytest.MonkeyPatch, small_model: Path, prompts_file: Path) -> Any:
    """While this process plans the run, another one makes it."""
    plan, made = create._plan, []

    def plan_while_another_makes(request: Any) -> Any:
        planned = plan(request)
        if not made:
            made.append(request.path)
            start = ("--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
            done(*on(request.path, "init"), *start, "--set", "generate.max_new_tokens=4", "--quiet")
        return planned

    monkeypatch.setattr(create, "_plan", plan_while_another_makes)
    return made


def start_words(run: Path, model: Path, prompts: Path, *more: object, command: str = "generate") -> tuple[object, ...]:
    return (*on(run, command), "--model", model, "--prompts", prompts, "--eval-prompts", 4, *more)


@pytest.mark.parametrize("command", ["generate", "run"])
def test_the_second_of_two_first_commands_does_not_take_the_run_away(
    tmp_path: Path, small_model: Path, prompts_file: Path, first_by_another: list, command: str
) -> None:
    run = tmp_path / "run"
    message = refused(
        4, *start_words(run, small_model, prompts_file, "--set", "generate.max_new_tokens=4", command=command)
    )
    assert "the run has 20 prompts to draw from" in message
    assert first_by_another == [run]
    assert "max_new_tokens: 4" in (run / "config.yaml").read_text()


@pytest.mark.parametrize("command", ["init", "generate", "run"])
def test_the_second_of_two_first_commands_does_not_lose_its_settings(
    tmp_path: Path, small_model: Path, prompts_file: Path, first_by_another: list, command: str
) -> None:
    run = tmp_path / "run"
    other = ("--set", "generate.max_new_tokens=7")
    message = refused(3, *start_words(run, small_model, prompts_file, *other, command=command))
    assert "generate.max_new_tokens  4 → 7" in message
    assert first_by_another == [run]
    assert (run / "run.json").is_file()


def test_a_run_in_which_something_has_begun_is_not_discarded(new_run: Path) -> None:
    (new_run / "iter-001").mkdir()
    create.discard(Run(new_run))
    assert (new_run / "run.json").is_file()


def test_a_run_in_which_another_process_works_is_not_discarded(new_run: Path) -> None:
    lock = new_run / ".locks" / "iter-001-generate.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        create.discard(Run(new_run))
        assert (new_run / "run.json").is_file()
        holder.kill()
        holder.wait()
    create.discard(Run(new_run))
    assert not new_run.exists()
    assert not [path for path in new_run.parent.iterdir() if path.suffix == ".tmp"]


def test_a_folder_of_locks_alone_is_free(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    (tmp_path / "run" / ".locks").mkdir(parents=True)
    done(*start_words(tmp_path / "run", small_model, prompts_file, command="init"))
    assert (tmp_path / "run" / "run.json").is_file()


@pytest.mark.parametrize("command", ["init", "generate", "run"])
def test_another_preset_is_refused(new_run: Path, command: str) -> None:
    before = snapshot(new_run)
    assert "preset  paper → tiny" in refused(3, *on(new_run, command), "--preset", "tiny")
    assert snapshot(new_run) == before


def test_the_same_preset_is_accepted(new_run: Path) -> None:
    done(*on(new_run, "generate"), "--preset", "paper")


@pytest.mark.parametrize("command", ["init", "generate", "run"])
def test_prompts_that_have_changed_are_refused(
    tmp_path: Path, small_model: Path, prompts_file: Path, command: str
) -> None:
    copy = tmp_path / "prompts.jsonl"
    copy.write_text(prompts_file.read_text())
    run = tmp_path / "run"
    done(*start_words(run, small_model, copy, command="init"))
    copy.write_text(prompts_file.read_text() + '{"prompt": "one more"}\n')
    before = snapshot(run)
    assert "has changed" in refused(3, *on(run, command), "--prompts", copy)
    assert snapshot(run) == before


def test_init_compares_with_the_settings_as_they_are_now(new_run: Path) -> None:
    assert "train.beta  0.1 → 0.7" in refused(3, *on(new_run, "init"), "--set", "train.beta=0.7")
    path = new_run / "config.yaml"
    path.write_text(path.read_text().replace("  beta: 0.1 ", "  beta: 0.7 "))
    before = snapshot(new_run)
    assert "up to date" in done(*on(new_run, "init"), "--set", "train.beta=0.7").stderr
    assert "train.beta  0.7 → 0.1" in refused(3, *on(new_run, "init"), "--set", "train.beta=0.1")
    budget = SMALL["select.budget"]
    assert "up to date" in done(*on(new_run, "init"), "--set", f"select.budget={budget}").stderr
    assert "select.methods.activedpo.ridge" in refused(
        3, *on(new_run, "init"), "--set", "select.methods.activedpo.ridge=0.2"
    )
    assert snapshot(new_run) == before


def test_another_spelling_of_what_is_fixed_is_not_written_down(
    new_run: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would stand against what the run was made with, and every later stage would refuse it."""
    monkeypatch.chdir(small_model.parent)
    done(*on(new_run, "generate"), "--model", small_model.name)
    done(*on(new_run, "featurize"))


@pytest.mark.parametrize("command", ["init", "generate", "run", "featurize"])
@pytest.mark.parametrize("name", ["run.json", "reference/base.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b"null", b"\xff", b'{"schema": 1, "name": 3}'])
def test_a_damaged_record_of_the_run_is_named(new_run: Path, command: str, name: str, content: bytes) -> None:
    (new_run / name).write_bytes(content)
    before = snapshot(new_run)
    assert name in refused(4, *on(new_run, command))
    assert snapshot(new_run) == before


def test_a_run_of_a_newer_version(new_run: Path) -> None:
    path = new_run / "run.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"schema": 2}))
    assert "newer version" in refused(4, *on(new_run, "generate"))


def test_a_base_that_lies_nowhere(new_run: Path) -> None:
    path = new_run / "reference" / "base.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"path": None, "hub_id": None}))
    assert "base.json" in refused(4, *on(new_run, "generate"))


def test_the_toy_task_with_another_model_warns(tmp_path: Path, small_model: Path) -> None:
    small = ("--num-prompts", 2, "--max-new-tokens", 3, "--eval-prompts", 3)
    result = done(*on(tmp_path / "toy", "generate"), "--model", small_model, *small)
    rate = read_preset("tiny")["train"]["learning_rate"]
    inherited = f"prompts, reward model, second scorer, learning rate {rate:g}"
    assert f"{inherited}; give --prompts FILE for your own" in result.stderr
    assert manifest(tmp_path / "toy", 1, "generate")["settings"]["generate.num_prompts"] == 2


def test_what_was_given_is_not_warned_about(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    started = ("--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    result = done(*on(tmp_path / "a", "init"), *started, "--preset", "tiny", "--set", "label.oracle=human")
    rate = read_preset("tiny")["train"]["learning_rate"]
    assert f"gets its second scorer, learning rate {rate:g}; leave --preset out" in result.stderr
    for words in (started, ("--eval-prompts", 3), ("--preset", "tiny", "--model", "tiny")):
        result = activedpo(*on(tmp_path / f"b{len(words)}", "init"), *words)
        assert result.exit_code == 0
        assert "toy task" not in result.stderr
