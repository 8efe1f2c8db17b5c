"""What can be written in a specification, and what is said about what can't."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from activedpo_cli.base.config import build_config, nested
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.presets import read_preset
from activedpo_cli.experiments.folder import ExperimentFolder
from activedpo_cli.experiments.spec import arms_of, built_in_specs, counterparts, parse_seeds, read_spec, with_settings
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.select.step import method_settings
from activedpo_cli.store.run import run_path

LEAST = {"title": "x", "arms": ["random"], "seeds": [0]}


def read(tmp_path: Path, **values: object) -> object:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(LEAST | values, sort_keys=False))
    return read_spec(str(tmp_path / "spec.yaml"))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True))
def test_seeds_are_lists_and_ranges(seeds: list[int]) -> None:
    assert parse_seeds(",".join(map(str, seeds))) == seeds
    low, high = min(seeds), max(seeds)
    assert parse_seeds(f"{low}-{high}, 77") == [*range(low, high + 1), 77]


def test_a_list_of_methods_is_short_for_arms(tmp_path: Path) -> None:
    assert read(tmp_path, arms=["random", "activedpo"]) == read(
        tmp_path, arms={"random": {"select.method": "random"}, "activedpo": {"select.method": "activedpo"}}
    )


def test_every_arm_meets_every_point_of_the_grid(tmp_path: Path) -> None:
    grid = {"select.methods.activedpo.ridge": [0.1, 1], "featurize.proj_dim": [64, 128]}
    spec = read(tmp_path, arms=["activedpo"], grid=grid, settings={"select.budget": 5})
    found = arms_of(spec)
    assert list(found) == [f"activedpo+ridge={ridge}+proj_dim={dim}" for ridge in ("0.1", "1") for dim in (64, 128)]
    assert counterparts(spec, "activedpo") == {name: name for name in found}
    some = ExperimentFolder(Path("runs/x"), spec)
    assert [job.arm for job in some.jobs(arms=["activedpo"])] == list(found)
    assert [job.arm for job in some.jobs(arms=["activedpo+ridge=1+proj_dim=64"])] == ["activedpo+ridge=1+proj_dim=64"]
    assert counterparts(spec, None) == {}
    assert found["activedpo+ridge=1+proj_dim=64"] == {
        "select.budget": 5,
        "select.method": "activedpo",
        "select.methods.activedpo.ridge": 1,
        "featurize.proj_dim": 64,
    }
    for job in ExperimentFolder(Path("runs/x"), spec).jobs():
        assert run_path(str(job.path)) == job.path, "a valid name of a run"


def test_settings_typed_with_the_command(tmp_path: Path) -> None:
    spec = read(tmp_path, arms=["activedpo"], grid={"model.name": ["a", "b"]}, settings={"select.budget": 5})
    found = with_settings(spec, {"model.name": ["/x/one", "org/two"], "select.budget": 7, "adapter.r": 4})
    assert list(arms_of(found)) == ["activedpo+name=one", "activedpo+name=two"]
    assert arms_of(found)["activedpo+name=two"] == {
        "select.budget": 7,
        "adapter.r": 4,
        "select.method": "activedpo",
        "model.name": "org/two",
    }
    assert list(arms_of(with_settings(spec, {"model.name": "c"}))) == ["activedpo+name=c"]
    tuned = {"model.name": ["runs/one/reference/sft/model", "runs/two/reference/sft/model"]}
    assert list(arms_of(with_settings(spec, tuned))) == ["activedpo+name=one", "activedpo+name=two"]
    with pytest.raises(UsageError, match="can't be with these settings"):
        with_settings(spec, {"model.name": ["a/model", "b/model"]})
    with pytest.raises(UsageError, match="is what arms of this experiment differ in"):
        with_settings(spec, {"select.method": "random"})


def test_arms_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    spec = read(tmp_path, arms={"d=64": {}, "d_64": {"featurize.proj_dim": 64}})
    with pytest.raises(UsageError, match="would have the same folder"):
        ExperimentFolder(tmp_path / "made", spec).jobs()


def test_variables_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_PLACE", "/there")
    spec = read(tmp_path, settings={"model.name": "${SOME_PLACE}/model", "adapter.target_modules": ["${SOME_PLACE}"]})
    folder = ExperimentFolder(tmp_path / "made", spec)
    assert folder.jobs()[0].settings["model.name"] == "/there/model"
    assert folder.jobs()[0].settings["adapter.target_modules"] == ["/there"]
    folder.write_spec()
    assert "/there" not in (tmp_path / "made" / "experiment.json").read_text(), "a place of one machine"
    monkeypatch.delenv("SOME_PLACE")
    with pytest.raises(UsageError, match="SOME_PLACE, which is not set"):
        folder.jobs()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": "0-x"}, "seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"arms": {}}, "arms"),
        ({"arms": {"a/b": {}}}, "can't name an arm"),
        ({"baseline": "rando"}, "`rando` is none of the arms"),
        ({"ceiling": "top"}, "`top` is none of the arms"),
        ({"settings": {"seed": 3}}, "`seed` is set by seeds"),
        ({"iterations": 0}, "iterations"),
        ({"grid": {"model.name": ["a/model", "b/model"]}}, "called alike: model, model"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        read(tmp_path, **values)
    assert message in " ".join([caught.value.message, *caught.value.details])


@pytest.mark.parametrize("name", sorted(built_in_specs()))
def test_a_built_in_experiment_has_settings_that_exist(name: str) -> None:
    spec = read_spec(name)
    assert len(built_in_specs()[name]) > 20
    assert spec.preset is not None
    for arm, settings in arms_of(spec).items():
        config = build_config(nested(settings, read_preset(spec.preset)))
        assert method_settings(config), arm
        make_projection(config.featurize.projection, config.featurize.proj_dim, seed=0)
        assert config.prompts.eval_prompts > 0
        assert config.label.oracle.startswith("reward-model:")


def test_a_name_that_is_none_lists_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither a file nor an experiment") as caught:
        read_spec("no-such-thing")
    assert caught.value.hint == "activedpo ls experiments"
    assert all(name in " ".join(caught.value.details) for name in built_in_specs())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"seeds": "5-2"}, "`5-2` counts down; write 2-5"),
        ({"seeds": "1,x"}, "'x' is neither a seed nor a range"),
        ({"sedes": [1]}, "sedes  is no part of an experiment — did you mean `seeds`?"),
        ({"grid": {"train.learning_rate": []}}, "`train.learning_rate` has no values in grid"),
        ({"baseline": "none"}, "baseline `none` is none of the arms: random"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, values: dict, reason: str) -> None:
    with pytest.raises(InvalidDataError) as caught:
        read(tmp_path, **values)
    assert any(reason in line for line in caught.value.details)
    assert not any("Value error" in line for line in caught.value.details)
