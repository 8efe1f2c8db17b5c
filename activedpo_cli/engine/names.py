"""Brings what was typed to one spelling: keys of settings, and names of methods, backends and oracles."""

import os
from collections.abc import Mapping
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.settings import current_key
from activedpo_cli.oracles.base import parse_spec

NAMING_SETTINGS = {"select.method": "acquisition", "generate.backend": "generation"}
ORACLE_SETTINGS = ("label.oracle", "evaluate.scorer", "evaluate.second_scorer")

FILES_READ_AGAIN = ("label.gold",)


def with_known_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings with every name resolved; raises UsageError with the nearest name for an unknown one.

    A file that every iteration reads again goes by its path from the root, from whatever folder a later command is typed.
    """
    resolved = {current_key(key): value for key, value in given.items()}
    for key in resolved:
        _check_setting_of_method(key)
    for key, folder in NAMING_SETTINGS.items():
        if isinstance(given.get(key), str):
            resolved[key] = discovery.resolve(folder, given[key])
    for key in ORACLE_SETTINGS:
        if isinstance(given.get(key), str):
            name, argument = parse_spec(given[key])
            resolved[key] = name if argument is None else f"{name}:{argument}"
    for key in FILES_READ_AGAIN:
        if isinstance(given.get(key), str):
            resolved[key] = os.path.abspath(given[key])
    return resolved


def _check_setting_of_method(key: str) -> None:
    """Raise UsageError for a setting that its method has not, which else only a choice by that method would tell."""
    if not key.startswith("select.methods."):
        return
    section, _, name = key.removeprefix("select.methods.").partition(".")
    methods = {method.replace("-", "_"): method for method in discovery.available("acquisition")}
    if section not in methods or not name:
        return
    known = discovery.setting_names("acquisition", methods[section])
    if name not in known:
        there = [f"known: {', '.join(f'select.methods.{section}.{one}' for one in known)}"] if known else []
        raise UsageError(
            f"the method `{methods[section]}` has no such setting",
            details=[f"{key}  unknown setting" + did_you_mean(name, known), *there],
        )
