"""The reference pages of the site, made from the code whenever the site is built, so that they can't be out of date.

python docs/site/reference.py commands     prints a page as Markdown
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import cleandoc
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel
from typer.main import get_command

from activedpo_cli.base import discovery, errors, records
from activedpo_cli.base.presets import read_preset
from activedpo_cli.base.settings import SECTIONS, Config, section_of
from activedpo_cli.base.yaml_text import one_line
from activedpo_cli.cli.app import COMMANDS, app
from activedpo_cli.cli.help_text import rows_by_panel
from activedpo_cli.engine.step import Stage
from activedpo_cli.experiments.spec import built_in_specs
from activedpo_cli.run.choices import ALSO, EXPERIMENTS, RUNS, choices, method_choices
from activedpo_cli.run.command import load_stage
from activedpo_cli.store import manifest
from activedpo_cli.store.run import SFT, STAGES

ORIGIN = "*Made from the code of this version when the site was built.*"


def settings_page() -> str:
    """Every setting with its default, what the built-in task has, its flags and its meaning."""
    tiny = dict(_flattened(read_preset("tiny")))
    parts = [
        "# Settings",
        ORIGIN,
        "What can change a result stands in `config.yaml` of the run under these names. `--set section.name=value` reaches "
        "all of them; nearly every one is a flag as well. The defaults are those of the preset `paper`; where the preset "
        "`tiny` (the built-in task) says otherwise, its value stands below. How settings are inherited is told under "
        "[Run, look, go on](../running.md#settings-and-presets).",
    ]
    for name, section in {"": Config, **SECTIONS}.items():
        parts += [f"## {name or 'seed'}", _docstring(section), _settings_table(name, section, tiny)]
    parts += ["## Settings of single methods", "They stand under `select.methods.NAME`.", _methods_settings()]
    return _page(parts)


def commands_page() -> str:
    """Every command with its help, arguments and flags, as `--help` has them."""
    group = get_command(app)
    listed = [
        _table(
            ("command", "what it does"),
            [(f"[`{name}`](#{name})", _first_line(_commands()[name][0].help)) for name in names],
        )
        for names in COMMANDS.values()
    ]
    parts = [
        "# Commands",
        ORIGIN,
        "`activedpo COMMAND --help` says the same. [Exit codes](#exit-codes) stand at the end.",
    ]
    parts += [part for panel, table in zip(COMMANDS, listed, strict=True) for part in (f"**{panel}**", table)]
    for name in group.list_commands(None):  # type: ignore[attr-defined]
        for words, (command, context) in _commands().items():
            if words.split()[0] == name:
                parts += _command(words, command, context)
    return _page([*parts, "## Exit codes", _exit_codes()])


def artifacts_page() -> str:
    """What identifies the work of each stage, and the fields of each record that stages hand to each other."""
    rows = [kind for kind in vars(records).values() if is_dataclass(kind) and kind is not records.Spent]
    return _page(
        [
            "# Stages and records",
            ORIGIN,
            "What each file holds and why is told in [The files of a run](../artifacts.md); these are its stages and "
            "records as the code has them.",
            "## What a stage depends on",
            "A finished stage is up to date as long as its version, these settings and its inputs are the same.",
            _table(("stage", "version", "settings"), [_stage_row(load_stage(name)) for name in (SFT, *STAGES)]),
            "## Records of a stage",
            *_record(manifest.Started),
            *_record(manifest.Manifest),
            *_record(manifest.OutputFile),
            "## Rows of files",
            *(part for kind in rows for part in _record(kind)),
        ]
    )


def choices_page() -> str:
    """Methods, oracles and whatever else is chosen by name, as `activedpo ls` lists them."""
    methods = [
        (f"`{name}`", ", ".join(row["needs"]) or "nothing", row["help"]) for name, row in method_choices().items()
    ]
    parts = ["# Choices", ORIGIN, "`activedpo ls methods`, `activedpo ls oracles` and so on say the same."]
    parts += ["## Methods", "Formulas and sources are in [The method](../method.md#methods)."]
    parts += [_table(("method", "needs", "what it is"), methods)]
    for kind in ALSO:
        if kind != RUNS:
            listed = built_in_specs() if kind == EXPERIMENTS else choices(kind)
            parts += [
                f"## {kind.capitalize()}",
                _table(("name", "what it is"), [(f"`{n}`", t) for n, t in listed.items()]),
            ]
    return _page(parts)


PAGES: dict[str, Callable[[], str]] = {
    "commands": commands_page,
    "settings": settings_page,
    "choices": choices_page,
    "records": artifacts_page,
}
"""By the name of the page below `reference/`."""


def _settings_table(name: str, section: type[BaseModel], tiny: dict[str, Any]) -> str:
    rows = list(_setting_rows(name, section, tiny)) if name else [_setting_row("seed", Config, "seed", tiny)]
    return _table(("setting", "default", "flag", "meaning"), rows)


def _setting_rows(prefix: str, section: type[BaseModel], tiny: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for field in section.model_fields:
        inner = section_of(section, field)
        if inner is None:
            yield _setting_row(f"{prefix}.{field}", section, field, tiny)
        else:
            yield from _setting_rows(f"{prefix}.{field}", inner, tiny)


def _setting_row(key: str, section: type[BaseModel], field: str, tiny: dict[str, Any]) -> tuple[str, ...]:
    found = section.model_fields[field]
    default = _code(_as_yaml(field, found.get_default(call_default_factory=True)))
    if key in tiny and tiny[key] != found.default:
        default += f"; tiny: {_code(_as_yaml(field, tiny[key]))}"
    allowed = _allowed(found.annotation)
    meaning = _text(found.description or "") + (f" (one of {', '.join(map(_code, allowed))})" if allowed else "")
    return (_code(key), default, ", ".join(map(_code, _flags().get(key, ()))), meaning)


def _allowed(annotation: Any) -> list[str]:
    """The words that a setting may be, where these are all."""
    if get_origin(annotation) in (Union, UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
        return _allowed(parts[0]) if len(parts) == 1 else []
    return [str(word) for word in get_args(annotation)] if get_origin(annotation) is Literal else []


def _methods_settings() -> str:
    rows = []
    for name in choices("methods"):
        section = discovery.load("acquisition", name).Settings
        for field, found in section.model_fields.items():
            default = _code(_as_yaml(field, found.get_default(call_default_factory=True)))
            rows.append((_code(f"select.methods.{name}.{field}"), default, _text(found.description or "")))
    return _table(("setting", "default", "meaning"), rows)


@cache
def _commands() -> dict[str, tuple[Any, Any]]:
    """Each command by all its words, with the context that its help is made in; groups come before what is in them."""
    found: dict[str, tuple[Any, Any]] = {}

    def add(group: Any, parent: Any, before: tuple[str, ...]) -> None:
        for name in group.list_commands(parent):
            command, words = group.get_command(parent, name), (*before, name)
            context = command.context_class(command, info_name=name, parent=parent)
            found[" ".join(words)] = (command, context)
            if hasattr(command, "commands"):
                add(command, context, words)

    group = get_command(app)
    add(group, group.context_class(group, info_name="activedpo"), ())
    return found


@cache
def _flags() -> dict[str, list[str]]:
    """The flags of each setting, over all commands."""
    found: dict[str, list[str]] = {}
    for command, _ in _commands().values():
        for parameter in command.params:
            key = (parameter.name or "").replace("__", ".")
            known = found.setdefault(key, [])
            known += [flag for flag in parameter.opts if flag.startswith("--") and flag not in known]
    return found


def _command(words: str, command: Any, context: Any) -> Iterator[str]:
    level = "##" if " " not in words else "###"
    yield f"{level} {words}"
    yield f"```text\n{' '.join(command.get_usage(context).split())}\n```"
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        yield _paragraph(" ".join(paragraph.split(" "))) if paragraph else ""
    for panel, rows in rows_by_panel(command, context).items():
        if panel != "Commands":
            yield _table((panel, "meaning"), [(", ".join(map(_code, names)), _text(text)) for names, text in rows])


def _paragraph(text: str) -> str:
    """A paragraph of a help: an example as code, what is read and written on lines of their own."""
    label, spaces, rest = text.partition("   ")
    if label == "Example:":
        return f"```bash\n{' '.join(rest.split())}\n```"
    lines = [" ".join(line.split()) for line in re.split(r"\s{3,}(?=Writes\s)", text)]
    return "<br>".join(_text(line) for line in lines) if spaces else _text(" ".join(text.split()))


def _exit_codes() -> str:
    rows = [("0", "Done, or up to date already.")]
    kinds = sorted(
        (kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ActiveDPOError)),
        key=lambda kind: kind.exit_code,
    )
    for code in sorted({kind.exit_code for kind in kinds}):
        named = [kind for kind in kinds if kind.exit_code == code and kind is not errors.TravelledError]
        rows.append((str(code), " ".join(_text(_first_line(kind.__doc__)) for kind in named)))
    return _table(("exit", "meaning"), rows)


def _stage_row(stage: Stage) -> tuple[str, ...]:
    return (_code(stage.name), str(stage.version), ", ".join(map(_code, sorted(stage.settings(Config())))))


def _record(kind: Any) -> Iterator[str]:
    yield f"### {kind.__name__}"
    yield _text(" ".join(cleandoc(kind.__doc__ or "").split()))
    hints = get_type_hints(kind)
    if is_dataclass(kind):
        names = {field.name: field.name for field in fields(kind)}
    else:
        names = {name: field.alias or name for name, field in kind.model_fields.items()}
    yield _table(("field", "type"), [(_code(shown), _code(_type_name(hints[name]))) for name, shown in names.items()])


def _type_name(hint: Any) -> str:
    """A type in words of JSON where it has them."""
    if hint is type(None):
        return "null"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type_name(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is list:
        return f"list of {_type_name(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"object of {_type_name(get_args(hint)[1])}"
    return {str: "text", Any: "anything"}.get(hint, getattr(hint, "__name__", str(hint)))


def _flattened(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _as_yaml(field: str, value: Any) -> str:
    return one_line(field, value).removeprefix(f"{field}:").strip()


def _first_line(docstring: str | None) -> str:
    return " ".join(cleandoc(docstring or "").partition("\n\n")[0].split())


def _docstring(section: type[BaseModel]) -> str:
    return _text(" ".join(cleandoc(section.__doc__ or "").split()))


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{text}{fence}" if text else ""


def _text(text: str) -> str:
    """Text of the code as Markdown shows it: code stays code, and nothing else is taken for markup."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<>*_\[\]|\\])", r"\\\1", part) for part in parts)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    print(PAGES[sys.argv[1]]())
