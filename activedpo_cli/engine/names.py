"""Brings what was typed to one spelling: keys of settings, and names of methods, backends and oracles."""

from collections.abc import Mapping
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.settings import current_key
from activedpo_cli.oracles.base import parse_spec

NAMING_SETTINGS = {"select.method": "acquisition", "generate.backend": "generation"}
ORACLE_SETTINGS = ("label.oracle", "evaluate.scorer", "evaluate.second_scorer")


def with_known_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """The given settings with every name resolved; raises UsageError with the nearest name for an unknown one."""
    resolved = {current_key(key): value for key, value in given.items()}
    for key, folder in NAMING_SETTINGS.items():
        if isinstance(given.get(key), str):
            resolved[key] = discovery.resolve(folder, given[key])
    for key in ORACLE_SETTINGS:
        if isinstance(given.get(key), str):
            name, argument = parse_spec(given[key])
            resolved[key] = name if argument is None else f"{name}:{argument}"
    return resolved
