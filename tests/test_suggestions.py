"""Names that others use, and misspelt ones, lead to the setting, flag or choice that was meant."""

from pathlib import Path

import pytest
from command_line import activedpo, on, refused
from trl import DPOConfig

from activedpo_cli.base import discovery
from activedpo_cli.base.settings import SECTIONS, Config, section_of
from activedpo_cli.base.suggestions import ABSENT, OTHER_NAMES, called_settings, meant_settings

MEANT = {
    "train.epochs": "train.num_train_epochs",
    "epochs": "train.num_train_epochs",
    "num_train_epochs": "train.num_train_epochs",
    "training.epochs": "train.num_train_epochs",
    "sft.epochs": "sft.num_train_epochs",
    "train.per_device_batch_size": "train.per_device_train_batch_size",
    "per_device_train_batch_size": "train.per_device_train_batch_size",
    "train.lr": "train.learning_rate",
    "learning_rate": "train.learning_rate",
    "train.lora_alpha": "adapter.lora_alpha",
    "adapter.lora_r": "adapter.r",
    "lora_dropout": "adapter.lora_dropout",
    "beta": "train.beta",
    "trian.betta": "train.beta",
    "max_length": "generate.max_new_tokens",
    "gen.temperature": "generate.temperature",
    "train.budget": "select.budget",
    "budget": "select.budget",
    "model.path": "model.name",
    "featurize.projdim": "featurize.proj_dim",
    "sed": "seed",
}


@pytest.mark.parametrize(("typed", "meant"), MEANT.items())
def test_the_first_suggestion_is_what_was_meant(typed: str, meant: str) -> None:
    assert meant_settings(typed)[0] == meant


def test_nonsense_means_nothing() -> None:
    assert meant_settings("train.qqqq") == meant_settings("xyzzy") == []


def exists(key: str) -> bool:
    section, _, leaf = key.partition(".")
    if leaf.startswith("methods."):
        _, method, own = leaf.split(".")
        return own in discovery.setting_names("acquisition", method)
    outer, _, inner = leaf.partition(".")
    if inner:
        group = section_of(SECTIONS[section], outer)
        return group is not None and inner in group.model_fields
    return section in Config.model_fields if not leaf else leaf in SECTIONS[section].model_fields


def test_every_suggestion_of_the_tables_exists_and_no_setting_is_said_to_be_absent() -> None:
    assert all(exists(key) for keys in OTHER_NAMES.values() for key in keys)
    assert not any(name in section.model_fields for name in ABSENT for section in SECTIONS.values())
    for kind, names in discovery.OTHER_NAMES.items():
        assert set(names.values()) <= set(discovery.available(kind))
        assert not set(names) & set(discovery.available(kind))


def test_what_trl_calls_a_setting_that_there_is_leads_to_it() -> None:
    """Its own names are the ones that *train* uses; those of them that others spell alike must not lead elsewhere."""
    ours = set(SECTIONS["train"].model_fields) & set(DPOConfig.__dataclass_fields__)
    assert len(ours) > 10
    assert all(f"train.{name}" in called_settings(name) for name in ours)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--set", "train.epochs=3"), "train.epochs  unknown setting — did you mean `train.num_train_epochs`?"),
        (("--set", "epochs=3"), "did you mean `train.num_train_epochs` or `sft.num_train_epochs`?"),
        (("--set", "label.answer=bradleyterry"), "did you mean `bradley-terry`?"),
        (("--set", "train.max_prompt_length=3"), "nothing is cut off"),
        (("--set", "select.methods.activedpo.rigde=1"), "did you mean `ridge`?"),
        (("--set", "model=gemma-2b"), "`--set model.name=gemma-2b`"),
        (("--oracle", "my_scorer.py:score"), "did you mean `python:my_scorer:score`?"),
        (("--oracle", "./rm"), "did you mean `reward-model:./rm`?"),
        (("--oracle", "people"), "did you mean `human`?"),
        (("--method", "coreset"), "did you mean `k-center`?"),
    ],
)
def test_what_is_typed_is_answered_with_what_was_meant(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in refused(2, *on(tmp_path / "run", "run"), *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs: 3\n", "num_train_epochs"),
        ("train: {lora_alpha: 3}\n", "adapter.lora_alpha"),
        ("lr: 1\n", "train.lear"),
    ],
)
def test_config_yaml_is_answered_alike(new_run: Path, text: str, said: str) -> None:
    (new_run / "config.yaml").write_text(text)
    assert said in refused(2, *on(new_run, "generate"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("settings: {epochs: 3}", "did you mean `train.num_train_epochs`"),
        ("settings: {train.lr: 3}", "did you mean `train.learning_rate`?"),
        ("budget: 3", "did you mean `settings: {select.budget: …}`?"),
    ],
)
def test_experiments_are_answered_alike(tmp_path: Path, line: str, said: str) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text(f"title: x\narms: [random]\nseeds: 0-1\n{line}\n")
    result = activedpo("experiment", spec, "--output", tmp_path / "runs")
    assert result.exit_code in (2, 4)
    assert said in result.stderr


def test_experiments_and_kinds_to_list_are_answered_alike() -> None:
    assert "did you mean `figure-1-tiny`?" in refused(2, "experiment", "figure-1-tin")
    assert "did you mean `methods`?" in refused(2, "ls", "method")


@pytest.mark.parametrize(
    ("flag", "said"),
    [("--lora-rank", "--lora-r"), ("--lr", "--learning-rate"), ("--max-length", "--set generate.max_new_tokens=…")],
)
def test_flags_are_answered_alike(flag: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = activedpo("train", flag, 3)
    assert result.exit_code == 2
    assert said in result.stderr


def test_settings_within_a_group_are_meant_by_their_group() -> None:
    assert meant_settings("label.judge.baseurl") == ["label.judge.base_url"]
    assert meant_settings("label.judge.prise_input") == ["label.judge.price_input"]
    assert meant_settings("api_base") == ["label.judge.base_url", "generate.server_url"]
