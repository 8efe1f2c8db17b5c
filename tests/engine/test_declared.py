"""A step can read the settings that it declared, and reading any other one is an error, not a default."""

import pytest

from activedpo_cli.base.config import build_config, flat
from activedpo_cli.engine.declared import every_setting_of, of_record, of_work_to_come, only


def test_only_what_is_named_can_be_read() -> None:
    config = build_config({"seed": 3, "generate": {"num_prompts": 7}, "select": {"activedpo": {"ridge": 0.5}}})
    seen = only(config, ["seed", "generate.num_prompts", "select.budget"])
    assert (seen.seed, seen.generate.num_prompts, seen.select.budget) == (3, 7, 50)
    for read in (lambda: seen.generate.truncated, lambda: seen.train, lambda: seen.select.method):
        with pytest.raises(AttributeError):
            read()
    assert flat(seen, "seed", "generate") == {"seed": 3, "generate.num_prompts": 7}


def test_a_record_decides_whatever_the_defaults_are() -> None:
    seen = of_record({"label.oracle": "recorded", "label.noise": 0.25}, ["label.unit_size"])
    assert (seen.label.oracle, seen.label.noise) == ("recorded", 0.25)
    assert seen.label.unit_size == 16  # an older record lacks it, and it then had its default
    with pytest.raises(AttributeError):
        _ = seen.label.answer


def test_values_that_a_step_fills_in_are_what_it_sees() -> None:
    config = build_config({"evaluate": {"max_new_tokens": None}, "generate": {"max_new_tokens": 9}})
    seen = of_work_to_come(config, {"evaluate.max_new_tokens": 9}, ["sft.save_steps"])
    assert seen.evaluate.max_new_tokens == 9
    assert seen.sft.save_steps == 500
    with pytest.raises(AttributeError):
        _ = seen.generate


def test_every_setting_of_a_section_is_named() -> None:
    assert {"label.oracle", "label.noise"} < set(every_setting_of(["label"]))
