"""The help of commands: names in full at any width, what they mean beside them or, where there is no room, below.

The command-line library ends in an ellipsis a name that is too long for its table, takes square brackets for markup, and
fails where the output's encoding lacks a letter.
"""

import re
import sys
import textwrap
from collections.abc import Iterator
from inspect import cleandoc
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from activedpo_cli.cli.drawing import encodable

if TYPE_CHECKING:
    from rich.panel import Panel
    from rich.text import Text

WIDEST = 110
"""Beyond that many columns lines are hard to read."""
MARGINS = 4
"""Columns that a panel's border and padding take."""
WIDEST_NAME = 32
"""Of the names beside which their meaning stands; longer ones have lines of their own."""
GAP = 2
_FLAG_AND_VALUE = re.compile(r"(--[\w-]+) (?!-)")
_WRITES = re.compile(r"\s{3,}(?=Writes\s)")


class HelpedCommand(TyperCommand):
    """A command with such a help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print what the command is for, and its arguments and flags."""
        print_help(self, ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words; of a flag that there is not the error names those that do what was meant."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if isinstance(name := getattr(error, "option_name", None), str) and hasattr(error, "possibilities"):
                error.possibilities = _meant_flags(self, name) or error.possibilities
            raise


def _meant_flags(command: Any, name: str) -> list[str]:
    """Flags of the command, else `--set`, for the setting that an unknown flag names elsewhere or in other libraries."""
    from activedpo_cli.base.suggestions import called_settings

    keys = called_settings(name.lstrip("-").replace("-", "_"))
    flags = {parameter.name: parameter.opts for parameter in command.params}
    own = [flag for key in keys for flag in flags.get(key.replace(".", "__"), ())]
    return own or [f"--set {key}=…" for key in keys if "set_" in flags]


class HelpedGroup(TyperGroup):
    """A group of commands with such a help."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print what the group is for, its flags and its commands."""
        print_help(self, ctx)


def print_help(command: Any, context: Any) -> None:
    """The usage, the docstring, a panel of names for each kind, and the last words, on stdout."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    for line in ["", *_wrapped(command.get_usage(context), width - 1), ""]:
        console.print(Text(line, style="bold"))
    for paragraph in cleandoc(command.help or "").split("\n\n"):
        for line in [*_paragraph(paragraph, width - 2), ""]:
            console.print(Text(f" {line}".rstrip()))
    for panel in _panels(command, context, width):
        console.print(panel)
    if command.epilog:
        console.print(Text(f"\n {encodable(command.epilog, sys.stdout)}\n"))


def _paragraph(text: str, width: int) -> Iterator[str]:
    """Lines of a paragraph; an example that takes several can be typed as it stands."""
    what, _, rest = text.partition("   ")
    if what == "Example:":
        command = _FLAG_AND_VALUE.sub(r"\1\0", " ".join(rest.split()))
        lines = _wrapped(f"Example:   {command}", width - len(" \\"), indent=4)
        yield from (line.replace("\0", " ") for line in [*(f"{line} \\" for line in lines[:-1]), lines[-1]])
        return
    for part in _WRITES.split(text) if what in ("Reads", "Writes") else [text]:
        label, spaces, rest = part.partition("   ")
        before = f"{label:<6}{spaces}" if spaces else ""
        yield from _wrapped(before + " ".join((rest if spaces else part).split()), width, len(before))


def _panels(command: Any, context: Any, width: int) -> "Iterator[Panel]":
    from rich.panel import Panel
    from rich.text import Text

    for title, rows in rows_by_panel(command, context).items():
        text = Text("\n").join(_table(rows, width - MARGINS))
        yield Panel(text, title=title, title_align="left", width=width, border_style="dim")


def rows_by_panel(command: Any, context: Any) -> dict[str, list[tuple[list[str], str]]]:
    """By the title of a panel: names that stand for one thing, and what it means."""
    found: dict[str, list[tuple[list[str], str]]] = {"Arguments": [], "Options": []}
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            panel = getattr(parameter, "rich_help_panel", None) or usual
            found.setdefault(panel, []).append((_names(parameter, context), " ".join(record[1].split())))
    for name in command.list_commands(context) if isinstance(command, TyperGroup) else ():
        inner = command.get_command(context, name)
        panel = getattr(inner, "rich_help_panel", None) or "Commands"
        first = cleandoc(inner.help or "").partition("\n\n")[0]
        found.setdefault(panel, []).append(([name], " ".join(first.split())))
    return {title: rows for title, rows in found.items() if rows}


def _names(parameter: Any, context: Any) -> list[str]:
    """Every spelling of a flag, the last with what is typed after it; of an argument its name."""
    if parameter.param_type_name == "argument":
        return [parameter.metavar or parameter.display_name_raw]
    names = sorted([*parameter.opts, *parameter.secondary_opts], key=lambda name: not name.startswith("--"))
    if parameter.is_flag:
        return names
    return [*names[:-1], f"{names[-1]} {parameter.display_type_rich(context).replace(' range>', '>')}"]


def _table(rows: list[tuple[list[str], str]], width: int) -> "Iterator[Text]":
    from rich.text import Text

    widest = min(WIDEST_NAME, width // 2 - GAP)
    left = max((len(", ".join(names)) for names, _ in rows if len(", ".join(names)) <= widest), default=0) + GAP
    for names, meaning in rows:
        *above, beside = _name_lines(names, width)
        if len(beside) > left - GAP:
            above, beside = [*above, beside], ""
        yield from (Text(line, style="bold cyan") for line in above)
        lines = _wrapped(meaning, width - left, breaks_words=True) or [""]
        for start, line in zip([beside, *[""] * (len(lines) - 1)], lines, strict=True):
            yield Text.assemble((start.ljust(left), "bold cyan"), line)


def _name_lines(names: list[str], width: int) -> list[str]:
    """Names with commas between them, none of them broken."""
    lines = [names[0]]
    for name in names[1:]:
        lines[-1] += ","
        if len(f"{lines[-1]} {name}") <= width - len(","):
            lines[-1] += f" {name}"
        else:
            lines.append(name)
    return lines


def _wrapped(text: str, width: int, indent: int = 0, *, breaks_words: bool = False) -> list[str]:
    """Lines broken at spaces, so that names stay whole; or else, where asked for, a word that no line could hold."""
    return textwrap.wrap(
        encodable(text, sys.stdout),
        max(width, 1),
        subsequent_indent=" " * indent,
        break_long_words=breaks_words,
        break_on_hyphens=False,
    )
