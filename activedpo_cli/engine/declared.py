"""Cuts the settings down to those that a step declared, so that no other can decide what it makes."""

from collections.abc import Iterable, Mapping
from typing import Any

from activedpo_cli.base.config import build_config, nested, with_changes
from activedpo_cli.base.settings import SECTIONS, Config, current_key


def only(config: Config, keys: Iterable[str]) -> Config:
    """The settings of some dotted keys; reading any other one raises AttributeError.

    Of the methods' own settings, `select.methods.…`, all are kept where one is named.
    """
    fields: dict[str, set[str]] = {}
    for key in map(current_key, keys):
        section, _, rest = key.partition(".")
        fields.setdefault(section, set()).add(rest.partition(".")[0])
    kept: dict[str, Any] = {
        name: _part(getattr(config, name), names) if name in SECTIONS else getattr(config, name)
        for name, names in fields.items()
    }
    return _with_these_fields(Config, kept)


def of_record(recorded: Mapping[str, Any], declared: Iterable[str] = ()) -> Config:
    """The settings in a record of work; those of `declared` that an older record lacks had their default."""
    names = frozenset({*recorded, *declared})
    return only(build_config(nested(recorded)), names)


def of_work_to_come(config: Config, declared: Mapping[str, Any], also: Iterable[str] = ()) -> Config:
    """The settings that a step will see: those that it `declared`, with the values it filled in, and `also` these."""
    return only(with_changes(config, declared), {*declared, *also})


def every_setting_of(sections: Iterable[str]) -> list[str]:
    """The dotted keys of all settings of some sections."""
    return [f"{name}.{field}" for name in sections for field in SECTIONS[name].model_fields]


def _part(section: Any, names: set[str]) -> Any:
    return _with_these_fields(type(section), {name: getattr(section, name) for name in names})


def _with_these_fields(kind: Any, values: dict[str, Any]) -> Any:
    """A settings object without the fields that are not given, not even with their defaults."""
    made = kind.model_construct(**values)
    for name in kind.model_fields:
        if name not in values:
            made.__dict__.pop(name, None)
    return made
