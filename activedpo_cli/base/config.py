"""`config.yaml` as settings: read, checked as a whole, written with their meanings. Opens no files."""

import json
import math
import re
import reprlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from activedpo_cli.base.display import holds_secret
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.settings import SECTIONS, Config, SelectSettings, current_key, section_of
from activedpo_cli.base.suggestions import unknown_setting
from activedpo_cli.base.template_kwargs import as_arguments
from activedpo_cli.base.yaml_text import one_line, read_yaml

CONFIG_NAME = "config.yaml"
LATER_RENDERING_SETTINGS = ("prompts.template_date", "prompts.template_kwargs")
"""The settings of how prompts become text that records of earlier versions lack; they had their default."""
RENDERING_SETTINGS = ("prompts.chat_template", *LATER_RENDERING_SETTINGS)
LATER_MODEL_SETTINGS = ("model.quantization",)
"""The settings of how the base is loaded that records of earlier versions lack; they had their default."""
LOADING_SETTINGS = ("model.dtype", "model.attn_implementation", *LATER_MODEL_SETTINGS)
EXCERPTS = reprlib.Repr()
EXCERPTS.maxstring = EXCERPTS.maxother = 120


@lru_cache(maxsize=8)
def parse_config(text: str) -> Config:
    """The settings in a `config.yaml`; raises UsageError that lists every problem at once."""
    return build_config(read_yaml(text))


def build_config(values: Mapping[str, Any]) -> Config:
    """Settings from nested values; raises UsageError that lists every problem at once."""
    try:
        key = json.dumps(values, allow_nan=False)
    except (ValueError, TypeError, RecursionError):  # nothing that settings hold, which is said of each
        return _built(values)
    return _built_before(key)


@lru_cache(maxsize=64)
def _built_before(key: str) -> Config:
    """Looking at a run asks for the settings of each of its stages, which are few different ones."""
    return _built(json.loads(key))


def _built(values: Mapping[str, Any]) -> Config:
    try:
        config = Config.model_validate(values)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        count = "a problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise UsageError(f"the settings have {count}", details=lines) from error
    check_values(values)
    return config


def check_values(values: Any, key: str = "") -> None:
    """Raise UsageError for a value that JSON cannot hold, as records do, or that must not be written down: a secret.

    YAML knows dates, sets, bytes and infinities too. Nothing of a secret is repeated.
    """
    if isinstance(values, Mapping):
        for name, value in values.items():
            check_values(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for value in values:
            check_values(value, key)
    elif isinstance(values, str):
        if holds_secret(values):
            raise UsageError(
                f"`{key}` holds what looks like a token or a password, and settings are written down",
                hint="give it in the environment, such as HF_TOKEN, or with `hf auth login`",
            )
        if "\0" in values or any("\ud800" <= character <= "\udfff" for character in values):
            raise UsageError(f"`{key}` is {EXCERPTS.repr(values)}, which no file can hold as a setting")
    elif not (
        values is None or isinstance(values, bool | int) or (isinstance(values, float) and math.isfinite(values))
    ):
        raise UsageError(f"`{key}` is {EXCERPTS.repr(values)}, and a setting is a finite number, a word or a list")


def with_changes(config: Config, changes: Mapping[str, Any]) -> Config:
    """The settings with dotted keys such as `select.budget` replaced."""
    return build_config(nested(changes, config.model_dump()))


def nested(changes: Mapping[str, Any], base: dict[str, Any] | None = None) -> dict[str, Any]:
    """Dotted keys as nested dictionaries, laid over `base`."""
    result = base if base is not None else {}
    for key, value in changes.items():
        *path, leaf = current_key(key).split(".")
        target = result
        for part in path:
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise UsageError(f"`{key}` names a setting inside `{part}`, which has none")
        target[leaf] = value
    return result


def flat(config: Config, *sections: str) -> dict[str, Any]:
    """The settings of some sections (or of the top level, by name) with dotted keys, as JSON values."""
    values = config.model_dump(mode="json", include=set(sections))
    return dict(_flatten(values))


def prompt_rendering(config: Config) -> dict[str, Any]:
    """How prompts become text, as keyword arguments of `encode_prompt`."""
    prompts = config.prompts
    return {
        "chat_template": prompts.chat_template,
        "template_date": prompts.template_date,
        "template_kwargs": as_arguments(prompts.template_kwargs),
    }


def prompt_rendering_settings(config: Config) -> dict[str, Any]:
    """The same as settings with dotted keys, which every step declares that encodes prompts."""
    return {key: getattr(config.prompts, key.partition(".")[2]) for key in RENDERING_SETTINGS}


def loading_settings(config: Config) -> dict[str, Any]:
    """How the base is loaded, with dotted keys, which every step declares that computes with it."""
    return {key: getattr(config.model, key.partition(".")[2]) for key in LOADING_SETTINGS}


def read_value(text: str) -> Any:
    """The value meant by the text after `--set key=`: a YAML scalar or list."""
    try:
        return read_yaml(text)
    except UsageError:
        return text


def parse_assignment(text: str) -> tuple[str, Any]:
    """`key=value` of `--set`; raises UsageError where there is no key."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"`--set {text}` is not of the form key=value", hint="for instance `--set select.budget=50`")
    parsed = read_value(value)
    section = key.strip()
    outer, _, inner = section.partition(".")
    named = SECTIONS.get(section) or (section_of(SECTIONS[outer], inner) if outer in SECTIONS else None)
    if isinstance(parsed, dict) or named is not None:
        first = next(iter(named.model_fields)) if named is not None else "…"
        raise UsageError(
            f"`--set {text}` names a whole section",
            hint=f"set its settings one by one, such as `--set {section}.{first}={'…' if parsed is None else value}`",
        )
    return current_key(key.strip().replace("-", "_")), parsed


def as_spelled(text: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changed settings with the keys that a `config.yaml` has for them, which may be those of an older version."""
    written = read_yaml(text)
    section = written.get("select") if isinstance(written, dict) else None
    older = {
        f"select.methods.{name}.": f"select.{name}."
        for name in section or ()
        if name not in SelectSettings.model_fields
    }
    prefix_of = {key: next((prefix for prefix in older if key.startswith(prefix)), "") for key in changes}
    return {older.get(prefix_of[key], "") + key.removeprefix(prefix_of[key]): value for key, value in changes.items()}


def render_config(config: Config) -> str:
    """A complete `config.yaml`: every default written out, each with its meaning as a comment."""
    lines = [f"seed: {config.seed}  # {_help(Config, 'seed')}"]
    for name, section in SECTIONS.items():
        lines += ["", f"{name}:  # {(section.__doc__ or '').strip().partition(chr(10))[0]}"]
        for field, value in getattr(config, name).model_dump(mode="json").items():
            lines += _render_field(section, field, value)
    return "\n".join(lines) + "\n"


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return rows


def _render_field(section: type[BaseModel], field: str, value: Any, indent: str = "  ") -> list[str]:
    inner = section_of(section, field)
    if inner is not None:
        lines = [f"{indent}{field}:  # {(inner.__doc__ or '').strip().partition(chr(10))[0]}"]
        return lines + [line for key in value for line in _render_field(inner, key, value[key], indent + "  ")]
    help_text = f"  # {_help(section, field)}" if field in section.model_fields else ""
    return [f"{indent}{one_line(field, value)}{help_text}"]


def _help(section: type[BaseModel], field: str) -> str:
    return section.model_fields[field].description or ""


def _explain(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    value = problem.get("input", PydanticUndefined)
    if problem["type"] == "extra_forbidden":
        inside = list(value) if isinstance(value, dict) else []
        if len(problem["loc"]) == 1 and len(inside) == 1:
            key += f".{inside[0]}"
        return f"{key}  {unknown_setting(key)}"
    shown = "" if value is PydanticUndefined or isinstance(value, dict) else f"{EXCERPTS.repr(value)}: "
    return f"{key}  {shown}{_in_words(problem)}"


def _in_words(problem: Any) -> str:
    """What is wrong with a value, and the choice that was meant where it is a misspelt one."""
    text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be", 1)
    if problem["type"] != "literal_error":
        return text
    choices = re.findall(r"'([^']*)'", problem["ctx"]["expected"])
    return text + did_you_mean(str(problem["input"]).lower(), choices)
