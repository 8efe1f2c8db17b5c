"""Presets are valid settings, and a misspelt one is named."""

import pytest

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.presets import available_presets, read_preset
from activedpo_cli.base.settings import Config
from activedpo_cli.prompts import tiny as tiny_prompts


def test_presets_are_valid_settings():
    assert set(available_presets()) >= {"paper", "tiny"}
    assert all(available_presets().values())
    assert Config.model_validate(read_preset("paper")) == Config()


def test_the_tiny_preset_is_a_miniature_of_the_paper():
    tiny = Config.model_validate(read_preset("tiny"))
    paper = Config.model_validate(read_preset("paper"))
    assert (tiny.model.name, tiny.prompts.source, tiny.label.oracle) == ("tiny", "tiny", "reward-model:tiny")
    assert tiny.evaluate.second_scorer == "python:activedpo_cli.tiny.rule:score"
    assert tiny.generate.num_responses == 3
    assert (tiny.select.method, tiny.select.normalise) == ("activedpo", "response")
    assert tiny.label.answer == paper.label.answer == "argmax"
    assert (tiny.train.loss_type, tiny.train.num_train_epochs) == ("sigmoid", paper.train.num_train_epochs)
    prompts = len(list(tiny_prompts.read(tiny.prompts)))
    assert prompts - tiny.prompts.eval_prompts >= 5 * tiny.generate.num_prompts


def test_an_unknown_preset_suggests_the_nearest():
    with pytest.raises(UsageError, match="did you mean `tiny`"):
        read_preset("tinny")
