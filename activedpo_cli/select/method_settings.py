"""The settings that belong to one acquisition method: found, checked, and told apart from those of others."""

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config


def method_section(method: str) -> str:
    """The name of a method's own settings under `select.methods`."""
    return method.replace("-", "_")


def method_settings(config: Config) -> BaseModel:
    """The chosen method's own settings, checked.

    Raises:
        InvalidDataError: its λ is no positive number.
        UsageError: anything else is wrong with them; all of it is named.

    """
    method = discovery.resolve("acquisition", config.select.method)
    section = method_section(method)
    own, prefix = config.select.methods.get(section, {}), f"select.methods.{section}."
    known = discovery.load("acquisition", method).Settings.model_fields
    default = known["ridge"].default if "ridge" in known else None
    return checked_settings(method, own, prefix, f"--set {prefix}ridge={default}")


def checked_settings(method: str, own: Mapping[str, Any], prefix: str = "", way_out: str | None = None) -> BaseModel:
    """The settings that are a method's own, with its defaults; raises what `method_settings` does.

    Args:
        method: Its option value.
        own: Those that are given, by their names.
        prefix: What stands before a name in what is said.
        way_out: What helps where λ is no positive number.

    """
    known = discovery.load("acquisition", method).Settings
    if "ridge" in known.model_fields and "ridge" in own:
        check_ridge(own["ridge"], way_out)
    try:
        return known.model_validate(dict(own))
    except ValidationError as error:
        names = list(known.model_fields)
        problems = [_explained(prefix, problem, names) for problem in error.errors()]
        there = [f"known: {', '.join(f'{prefix}{name}' for name in names)}"] if names else []
        without = "" if names else ": it has none"
        raise UsageError(f"the settings of method `{method}` are wrong{without}", details=problems + there) from error


def settings_of_choice(config: Config) -> dict[str, Any]:
    """The settings that a choice of pairs depends on, with dotted keys: of the methods' own those of the chosen method.

    Defaults are written out. Raises as `method_settings`.
    """
    method = discovery.resolve("acquisition", config.select.method)
    general = {
        f"select.{key}": getattr(config.select, key) for key in type(config.select).model_fields if key != "methods"
    }
    own = method_settings(config).model_dump(mode="json")
    of_method = {f"select.methods.{method_section(method)}.{key}": value for key, value in own.items()}
    return {"seed": config.seed, **general, "select.method": method, **of_method}


def check_ridge(value: Any, hint: str | None) -> None:
    """Raise InvalidDataError unless λ, whatever was typed for it, is a positive number."""
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (number > 0 and math.isfinite(number)):
        shown = f"{value:g}" if isinstance(value, float) else str(value).lower()
        raise InvalidDataError(
            f"λ must be a positive number, not {shown}: V = λI + Σφφᵀ would have no inverse", hint=hint
        )


def check_given_settings(given: Mapping[str, Any], method: str, progress: Progress) -> None:
    """Warn of given settings of other methods, which the chosen one does not use.

    Raises InvalidDataError where the method has a λ and the one given is no positive number.
    """
    method = discovery.resolve("acquisition", method)
    own = f"select.methods.{method_section(method)}."
    for key in given:
        if key.startswith("select.methods.") and not key.startswith(own):
            progress.warn(f"`{key}` is not used: the method is `{method}`")
    if f"{own}ridge" in given and "ridge" in discovery.setting_names("acquisition", method):
        check_ridge(given[f"{own}ridge"], f"--set {own}ridge=0.1")


def _explained(prefix: str, problem: Any, names: list[str]) -> str:
    leaf = ".".join(map(str, problem["loc"]))
    if problem["type"] != "extra_forbidden":
        return f"{prefix}{leaf}  {problem['msg']}"
    return f"{prefix}{leaf}  unknown setting" + did_you_mean(leaf, names)
