"""`run`: how far it goes, which stages its flags concern, and what it leaves when it ends early."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, activedpo, all_outputs, done, make_partial, manifest, on, refused, snapshot
from small_runs import small_run

from activedpo_cli.base import config as config_module
from activedpo_cli.engine.runner import StageOrder
from activedpo_cli.run import loop

REAL_RUN_STAGE = loop.run_stage


@pytest.fixture
def stages_done(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, str]]]:
    """Stages that only note that they were asked for; the list says when to press Ctrl-C by `stop_after`."""

    class Noted(list):
        stop_after: int | None = None

    noted = Noted()

    def run_stage(order: StageOrder) -> None:
        order.run.iteration_path(order.iteration).mkdir(exist_ok=True)
        if len(noted) == noted.stop_after:
            raise KeyboardInterrupt
        noted.append((order.iteration, order.stage.name))

    monkeypatch.setattr(loop, "run_stage", run_stage)
    return noted


@pytest.fixture
def interrupt_before(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Presses Ctrl-C when a stage is about to be done."""

    def at(name: str) -> None:
        def run_stage(order: StageOrder) -> Any:
            if order.stage.name == name:
                raise KeyboardInterrupt
            return REAL_RUN_STAGE(order)

        monkeypatch.setattr(loop, "run_stage", run_stage)

    return at


def setting(run: Path, name: str) -> str:
    """The value of a setting in `config.yaml`, whatever its section."""
    (value,) = re.findall(rf"^  {name}: (\S+)", (run / "config.yaml").read_text(), re.MULTILINE)
    return value


@pytest.mark.parametrize(("asked", "expected"), [((), 5), (("--iterations", 3), 3), (("--iterations", 8), 8)])
def test_typed_again_after_an_interruption_it_goes_on_to_the_same_end(
    new_run: Path, stages_done: Any, asked: tuple, expected: int
) -> None:
    stages_done.stop_after = 8  # in iteration 2
    assert activedpo(*on(new_run, "run"), *asked, "--quiet", "--no-report").exit_code == 130
    assert stages_done[-1] == (2, "featurize")
    stages_done.clear()
    stages_done.stop_after = None
    done(*on(new_run, "run"), "--quiet", "--no-report")
    assert list(stages_done) == [(t, name) for t in range(1, expected + 1) for name in STAGES]


def test_the_number_asked_for_last_counts_and_what_is_there_is_finished(new_run: Path, stages_done: Any) -> None:
    for asked, expected in (((2,), 2), ((), 2), ((4,), 4), ((), 4), ((1,), 1), ((), 4)):
        stages_done.clear()
        done(
            *on(new_run, "run"),
            *(word for number in asked for word in ("--iterations", number)),
            "--quiet",
            "--no-report",
        )
        assert stages_done[-1] == (expected, "evaluate")


@pytest.mark.parametrize("content", ["{", "[3]", '{"iterations": 0}', '{"iterations": "many"}'])
def test_a_damaged_memory_is_named(new_run: Path, stages_done: Any, content: str) -> None:
    (new_run / "loop.json").write_text(content)
    assert "loop.json" in refused(4, *on(new_run, "run"))
    assert not stages_done


def test_a_method_given_to_the_loop_concerns_featurize(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    """The run is configured for a method that needs no features."""
    run = small_run(tmp_path / "run", small_model, prompts_file, select__method="random")
    done(*on(run, "run"), "--iterations", 1, "--method", "activedpo", "--ridge", "0.5", "--quiet", "--no-report")
    assert manifest(run, 1, "featurize")["settings"]["featurize.compute"] == ["features"]
    settings = manifest(run, 1, "select")["settings"]
    assert (settings["select.method"], settings["select.methods.activedpo.ridge"]) == ("activedpo", 0.5)
    assert setting(run, "method") == "activedpo"


def test_a_contradiction_is_refused_before_anything_is_written(finished: Path) -> None:
    """An earlier stage that would have to be made again is not, when a later one has to refuse."""
    shutil.rmtree(finished / "iter-001" / "select")
    before = snapshot(finished)
    message = refused(3, *on(finished, "run"), "--iterations", 3, "--beta", "0.3", "--max-per-prompt", 2)
    assert "train.beta  0.1 → 0.3" in message
    assert "iter-001/train" in message
    assert snapshot(finished) == before


def test_a_contradiction_to_begun_work_is_refused_too(finished: Path) -> None:
    make_partial(finished, 2, "evaluate", "metrics.json")
    shutil.rmtree(finished / "iter-001" / "evaluate")
    shutil.rmtree(finished / "reference" / "evaluate")
    before = snapshot(finished)
    assert "evaluate.num_responses  2 → 3" in refused(3, *on(finished, "run"), "--eval-num-responses", 3)
    assert snapshot(finished) == before


def test_an_oracle_may_be_named_after_select(new_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with single commands; what select was made with says nothing against an oracle that can answer."""
    monkeypatch.chdir(new_run.parent)
    (new_run.parent / "longest.py").write_text(
        "def score(prompts, responses):\n    return [len(r) for r in responses]\n"
    )
    for stage in STAGES[:3]:
        done(*on(new_run, stage))
    before = snapshot(new_run / "iter-001" / "select")
    done(*on(new_run, "run"), "--iterations", 1, "--oracle", "python:longest:score", "--quiet", "--no-report")
    assert manifest(new_run, 1, "label")["settings"]["label.oracle"] == "python:longest:score"
    assert snapshot(new_run / "iter-001" / "select") == before


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupted_loop_has_kept_all_its_flags(
    new_run: Path, interrupt_before: Callable[[str], None], begun: bool
) -> None:
    done(*on(new_run, "generate"))
    if begun:
        make_partial(new_run, 1, "generate", "responses-00001.jsonl")
    interrupt_before("generate" if begun else "select")
    assert activedpo(*on(new_run, "run"), "--beta", "0.3", "--max-per-prompt", 2).exit_code == 130
    assert (setting(new_run, "beta"), setting(new_run, "max_per_prompt")) == ("0.3", "2")


NO_RIDGES = ("0", "-0.5", "nan", "false", "null", "much")
NO_SETTINGS = (".nan", ".inf", "1e400")


@pytest.mark.parametrize(
    ("code", "flags"),
    [
        (4, ("--num-prompts", 1000, "--beta", "0.3")),
        (2, ("--beta", -1)),
        (4, ("--ridge", 0)),
        (4, ("--ridge", -1)),
        (4, ("--ridge", "inf")),
        *((4, ("--set", f"select.methods.activedpo.ridge={value}")) for value in NO_RIDGES),
        *((2, ("--set", f"select.methods.activedpo.ridge={value}")) for value in NO_SETTINGS),
        (4, ("--method", "adpo", "--set", "select.methods.adpo.ridge=0")),
        (2, ("--set", "select.methods.activedpo.rigde=1")),
        (2, ("--method", "activdpo")),
    ],
)
def test_a_loop_that_fails_at_once_leaves_nothing(new_run: Path, code: int, flags: tuple) -> None:
    before = snapshot(new_run)
    refused(code, *on(new_run, "run"), *flags)
    assert snapshot(new_run) == before
    assert not (new_run / "iter-001").exists()


def test_a_ridge_of_zero_is_refused_by_select_too(finished: Path) -> None:
    before = snapshot(finished)
    for words in (("--force", "--ridge", 0), ("--ridge", -1), ("--set", "select.methods.activedpo.ridge=false")):
        assert "λ must be a positive number, not" in refused(4, *on(finished, "select", iteration=2), *words)
    assert snapshot(finished) == before


def test_the_same_flags_again_are_up_to_date(finished: Path) -> None:
    before = snapshot(finished)
    given = ("--temperature", 1, "--lora-r", 2, "--proj-dim", 64, "--budget", 4, "--beta", "0.1", "--epochs", 1)
    expected = all_outputs(finished)
    done(*on(finished, "run"), "--iterations", 2, *given, "--ridge", "0.1", "--eval-num-responses", 2, "--no-report")
    after = snapshot(finished)
    assert json.loads((finished / "loop.json").read_bytes()) == {"iterations": 2}
    assert {name: facts for name, facts in after.items() if name != "loop.json"} == {
        name: facts for name, facts in before.items() if name != "loop.json"
    }
    assert all_outputs(finished) == expected


def test_the_cost_of_a_finished_loop_does_not_grow_with_its_flags(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0
    build = config_module.build_config

    def counted(values: Any) -> Any:
        nonlocal checked
        checked += 1
        return build(values)

    monkeypatch.setattr(config_module, "build_config", counted)
    flags = [
        ("--num-prompts", 6),
        ("--num-responses", 3),
        ("--temperature", 1),
        ("--top-k", 0),
        ("--top-p", 1),
        ("--lora-r", 2),
        ("--lora-alpha", 8),
        ("--proj-dim", 64),
        ("--budget", 4),
        ("--method", "activedpo"),
        ("--beta", "0.1"),
        ("--learning-rate", "0.01"),
        ("--epochs", 1),
        ("--eval-num-responses", 2),
        ("--answer", "argmax"),
        ("--labels", "new"),
        ("--seed", 0),
    ]
    done(*on(finished, "run"), "--iterations", 2, *(word for flag in flags for word in flag), "--quiet", "--no-report")
    assert checked <= 5 * 2 * len(STAGES)
