"""Whatever `config.yaml` says today, looking back at a finished iteration uses what that iteration was made with."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from command_line import RULE, STAGES, activedpo, done, manifest, on, outputs, refused, snapshot, without
from pydantic import BaseModel
from small_runs import small_run

from activedpo_cli.base import discovery
from activedpo_cli.base.settings import SECTIONS
from activedpo_cli.base.yaml_text import changed_yaml, read_yaml

FIXED = ("model", "prompts")
OTHER: Mapping[str, Any] = {
    "sft.data": None,  # one that is set says that the run is to begin with an SFT, which is refused as such
    "sft.lora_modules": ["q_proj"],
    "sft.lr_scheduler_type": "cosine",
    "adapter.target_modules": ["q_proj"],
    "generate.backend": "transformers",
    "generate.stop_token_ids": [7],
    "generate.vllm_python": "elsewhere/bin/python",
    "generate.vllm_args": "--max-num-seqs=64",
    "generate.server_url": "http://127.0.0.1:9/v1",
    "generate.server_model": "elsewhere",
    "generate.server_api_key_env": "KEY",
    "generate.responses": "elsewhere.jsonl",
    "featurize.projection": "dense",
    "featurize.compute": ["features"],
    "select.method": "random",
    "label.oracle": "human",
    "label.score_field": "stars",
    "label.judge.base_url": "http://127.0.0.1:9/v1",
    "label.judge.api_key_env": "KEY",
    "label.judge.rubric": "elsewhere.txt",
    "label.gold": "elsewhere.jsonl",
    "train.lr_scheduler_type": "cosine",
    "evaluate.scorer": "python:letter_rule:other",
    "evaluate.second_scorer": RULE,
    "evaluate.score_field": "stars",
    "evaluate.preferences": "elsewhere.jsonl",
    "evaluate.max_new_tokens": 3,
}
"""Another value for settings whose type does not suggest one."""


def changed_value(kind: type[BaseModel], name: str, key: str, now: Any) -> Any:
    """A valid value of a setting that is not the one it has."""
    if key in OTHER:
        return OTHER[key]
    annotation = kind.model_fields[name].annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {part: changed_value(annotation, part, f"{key}.{part}", value) for part, value in now.items()}
    choices = [
        value
        for part in (annotation, *get_args(annotation))
        if get_origin(part) is Literal
        for value in get_args(part)
        if value != now
    ]
    if choices:
        return choices[0]
    if isinstance(now, bool):
        return not now
    if isinstance(now, int):
        return now + 1
    if isinstance(now, float):
        return 0.25 if now == 0 else now / 2
    assert now is None, f"{key} needs another value in OTHER"
    return 2


def every_changed_setting(run: Path) -> dict[str, Any]:
    """All settings that may be changed after an iteration, those of the method that chose too, each with another value."""
    now = read_yaml((run / "config.yaml").read_text())
    chosen_by = manifest(run, 1, "select")["settings"]
    own = {
        key: changed_value(
            discovery.load("acquisition", now["select"]["method"]).Settings, key.split(".")[-1], key, value
        )
        for key, value in chosen_by.items()
        if key.startswith("select.methods.")
    }
    return own | {
        f"{section}.{name}": changed_value(kind, name, f"{section}.{name}", now[section][name])
        for section, kind in SECTIONS.items()
        for name in kind.model_fields
        if section not in FIXED and name != "methods"
    }


@pytest.fixture(scope="module", params=["aplp", "activedpo"])
def original(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path
) -> Path:
    """Two iterations by a method that reads how often a text was sampled, or by the paper's; all columns are there."""
    run = small_run(
        tmp_path_factory.mktemp("looking-back") / "run",
        small_model,
        prompts_file,
        select__method=request.param,
        featurize__compute=["features", "logps", "ref_logps", "hidden", "mean_hidden"],
        generate__num_responses=4,
    )
    done(*on(run, "run"), "--iterations", 2, "--quiet", "--no-report")
    return run


def pair_of(run: Path) -> str:
    return json.loads((run / "iter-001/select/selection.jsonl").read_text().splitlines()[0])["pair_id"]


def timeless(value: Any) -> Any:
    """What a command says, without how long it took and without what it says of `config.yaml`."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in ("seconds", "notes", "run", "budget")}
    return [timeless(item) for item in value] if isinstance(value, list) else value


LOOKS = {
    "show": ("show", "--iteration", 1),
    "pair": ("show", "PAIR", "--no-tokens"),
    "why": ("show", "--why", "PAIR"),
    "features": ("show", "features", "--iteration", 1),
    "compare": ("compare", "aplp", "entropy", "activedpo", "apo", "--iteration", 1, "--budget", 4),
    "the newest": ("show",),
    "compare the newest": ("compare", "aplp", "activedpo", "--iteration", 2, "--budget", 4),
}


def seen(run: Path) -> dict[str, Any]:
    """What every look says, of iteration 1 and of the newest."""
    found = {}
    for name, words in LOOKS.items():
        typed = [pair_of(run) if word == "PAIR" else word for word in words]
        found[name] = timeless(json.loads(done(*typed, "--run", run, "--json").stdout))
    return found


def edit(run: Path, changes: Mapping[str, Any]) -> None:
    path = run / "config.yaml"
    path.write_text(changed_yaml(path.read_text(), dict(changes)))


@pytest.mark.usefixtures("blank_figures")
def test_every_setting_at_once_changes_no_look(original: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(original, tmp_path / "run"))
    before, files = seen(run), snapshot(run)
    edit(run, every_changed_setting(run))
    assert seen(run) == before
    for stage in STAGES:
        for iteration in (1, 2):
            assert "up to date" in done(*on(run, stage, iteration=iteration)).stderr
    states = json.loads(done("status", "--run", run, "--json").stdout)["iterations"]
    assert {row["stages"][stage]["state"] for row in states for stage in STAGES} == {"complete"}
    done("verify", "--run", run)
    done("report", run)
    assert without(snapshot(run), "report", "compare", "config.yaml") == without(
        files, "report", "compare", "config.yaml"
    )


@pytest.mark.usefixtures("blank_figures")
def test_each_setting_alone_changes_no_look(original: Path, tmp_path: Path) -> None:
    """One by one, since one change may hide another; by the look that reads most settings, without its picture."""
    if "aplp" not in (original / "config.yaml").read_text():
        pytest.skip("one run is enough for this")
    run = Path(shutil.copytree(original, tmp_path / "run"))
    text = (run / "config.yaml").read_text()

    def said() -> Any:
        words = ("compare", "aplp", "apo", "--iteration", 1, "--budget", 4)
        return timeless(json.loads(done(*words, "--run", run, "--json").stdout))

    before = said()
    changes = [*every_changed_setting(run).items(), ("seed", 7), ("label.oracle", "recorded")]
    for key, value in changes:
        (run / "config.yaml").write_text(changed_yaml(text, {key: value}))
        assert said() == before, key


def test_before_the_selection_a_comparison_says_what_leaves_nothing_to_choose(original: Path, tmp_path: Path) -> None:
    """The seed is that of the features; who will answer is still open, and is named where nobody could."""
    run = Path(shutil.copytree(original, tmp_path / "run"))
    for folder in (*(run / "iter-001" / name for name in STAGES[2:]), run / "iter-002"):
        shutil.rmtree(folder)
    text = (run / "config.yaml").read_text()
    words = ("compare", "random", "--iteration", 1, "--budget", 4, "--run", run, "--json")
    before = timeless(json.loads(done(*words).stdout))
    edit(run, {"seed": 7})
    assert timeless(json.loads(done(*words).stdout)) == before
    for changes, named in (
        ({"label.score_field": "stars"}, "score `stars`, which `label.score_field` names"),
        ({"label.oracle": "recorded"}, "`label.oracle` is `recorded`"),
    ):
        (run / "config.yaml").write_text(changed_yaml(text, changes))
        said = refused(4, *words)
        assert named in said
        assert "--set label.score_field=NAME" in said


def test_a_selection_made_again_depends_on_what_it_records(original: Path, tmp_path: Path) -> None:
    """`select --force` after an edit: settings of other stages decide nothing; its own do, and its record says so."""
    run = Path(shutil.copytree(original, tmp_path / "run"))
    recorded, picks = manifest(run, 1, "select")["settings"], outputs(run, 1, "select")
    edit(run, {key: value for key, value in every_changed_setting(run).items() if key not in recorded})
    done(*on(run, "select", iteration=1), "--force", "--quiet")
    assert outputs(run, 1, "select") == picks
    assert manifest(run, 1, "select")["settings"] == recorded
    edit(run, {"select.budget": 3})
    done(*on(run, "select", iteration=1), "--force", "--quiet")
    assert manifest(run, 1, "select")["settings"] == {**recorded, "select.budget": 3}


@pytest.mark.parametrize("truncated", ["drop", "keep"])
def test_truncated_is_what_featurize_was_made_with(
    truncated: str, tmp_path: Path, small_model: Path, prompts_file: Path
) -> None:
    """Either way round: responses that were cut off were candidates or not when the features were made, and still are."""
    run = small_run(
        tmp_path / "run", small_model, prompts_file, select__method="entropy", generate__truncated=truncated,
        generate__num_responses=5,
    )  # fmt: skip
    for stage in ("generate", "featurize", "select"):
        done(*on(run, stage, iteration=1), "--quiet")
    picks = outputs(run, 1, "select")
    edit(run, {"generate.truncated": "keep" if truncated == "drop" else "drop"})
    for words in (("compare", "entropy"), ("show", pair_of(run))):
        assert activedpo(*words, "--run", run, "--json").exit_code == 0
    done(*on(run, "select", iteration=1), "--force", "--quiet")
    assert outputs(run, 1, "select") == picks
