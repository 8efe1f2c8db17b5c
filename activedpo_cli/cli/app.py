"""The `activedpo` command: its subcommands, and the one place where errors and signals become text and exit codes."""

import ast
import importlib
import os
import select
import shlex
import signal
import sys
import traceback
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.main import get_command, get_group

from activedpo_cli.base.display import redacted
from activedpo_cli.base.errors import ActiveDPOError, InterruptedByUserError, Terminated
from activedpo_cli.base.interruption import behind, is_requested
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.base.version import described
from activedpo_cli.cli.help_text import HelpedCommand, HelpedGroup
from activedpo_cli.cli.render import print_error, print_message, safe_text
from activedpo_cli.cli.sharing import refuse_several
from activedpo_cli.cli.signals import stoppable
from activedpo_cli.cli.typed import remember

COMMANDS = {
    "Start": {
        "init": "run_commands.init",
        "run": "run_commands.run_loop",
        "experiment": "experiment_commands.experiment",
    },
    "Stages": {
        name: f"stage_commands.{name}"
        for name in ("sft", "generate", "featurize", "select", "label", "train", "evaluate")
    },
    "Look": {
        "status": "look_commands.status",
        "show": "look_commands.show",
        "compare": "look_commands.compare",
        "report": "look_commands.report",
        "export": "export_commands.export",
        "ls": "look_commands.list_choices",
        "bench": "bench_commands.bench",
        "judge": "judge_commands.judge",
    },
    "Check": {"verify": "health_commands.verify", "doctor": "health_commands.doctor"},
}
"""The commands in the order of the help, by panel, and the function behind each, whose docstring is its help."""
DISTRIBUTIONS = {"yaml": "pyyaml"}
"""What installs a package, where it is called otherwise."""
OWN_PACKAGES = frozenset(
    {"accelerate", "datasets", "filelock", "huggingface_hub", "jaxtyping", "jinja2", "matplotlib", "numpy", "peft"}
    | {"pydantic", "rich", "safetensors", "torch", "transformers", "trl", "typer", "yaml"}
)
"""Imported names of the dependencies: one installation brings all of them, in versions that fit."""
HELP_OPTIONS = frozenset({"-h", "--help"})
MEMORY_ADVICE = {
    "generate": "--device cpu, or a smaller --max-new-tokens in a new run",
    "featurize": "a smaller --tokens-per-batch, or --featurize-gradient-checkpointing",
    "select": "a smaller --memory with --features, or fewer candidates",
    "label": "a smaller --unit-size",
    "train": "a smaller --train-batch-size with more --gradient-accumulation-steps, or --gradient-checkpointing",
    "evaluate": "a smaller --unit-size, or --device cpu",
    "export": "--device cpu, or --device balanced",
    "sft": "a smaller --batch-size with more --gradient-accumulation-steps, --gradient-checkpointing, or --lora-r 64",
}
"""The settings by which a command needs less."""
LOOKING = frozenset({"status", "show", "ls", "bench", "verify", "doctor"})
"""Commands that write nothing."""
SHARING = frozenset(
    {"init", "sft", "generate", "featurize", "select", "label", "train", "evaluate", "run", "experiment"}
)
"""Commands that several processes may be given at once: they share units, and wait for what one of them does alone."""
READER_GONE_EXIT_CODE = 128 + signal.SIGPIPE


class ErrorBoundary(HelpedGroup):
    """Runs a subcommand; whatever it raises ends as a message and an exit code, never as a bare traceback.

    A subcommand is imported when it is asked for, since a start should not wait for what it does not need.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.commands = {name: None for panel in COMMANDS.values() for name in panel}  # type: ignore[misc]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand of that name; None where there is none."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _loaded(cmd_name)
        return self.commands.get(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """List the subcommands; their help is read from their source, and none is imported."""
        for panel, names in COMMANDS.items():
            for name, place in names.items():
                self.commands[name] = HelpedCommand(name, help=_docstring(place), rich_help_panel=panel)
        super().format_help(ctx, formatter)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the words before the subcommand."""
        try:
            return super().make_context(*args, **kwargs)
        except KeyboardInterrupt as error:
            raise typer.Exit(_end_by_signal(error, None)) from error
        except Exception as error:
            raise _made_harmless(error) from error.__cause__

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the subcommand, which may not be for one of several processes."""
        name, command, rest = super().resolve_command(ctx, args)
        remember(rest)
        if not HELP_OPTIONS.intersection(rest) and name not in LOOKING | SHARING:
            refuse_several(name)
        return name, command, rest

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            with stoppable():
                try:
                    return super().invoke(ctx)
                except typer.Exit:
                    raise
                except BaseException as error:
                    raise typer.Exit(_told(error, ctx.invoked_subcommand)) from error
        except KeyboardInterrupt as error:  # a signal that came while something was told
            raise typer.Exit(InterruptedByUserError.exit_code) from error


app = typer.Typer(
    name="activedpo",
    cls=ErrorBoundary,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": sorted(HELP_OPTIONS)},
    help="Choose which response pairs are worth a preference label, buy those labels, align the policy, repeat.",
    epilog="Quick start:  activedpo run --run first --iterations 2",
)


@app.callback(invoke_without_command=True)
def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version, and the commit where that is known.", is_eager=True
    ),
) -> None:
    if version:
        sys.stdout.write(f"activedpo {described()}\n")
        raise typer.Exit()


def main() -> None:
    """Entry point of the console script."""
    try:
        with stoppable(for_good=True):
            app()
    except KeyboardInterrupt as error:
        raise SystemExit(_end_by_signal(error, None)) from error
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # without this the interpreter would complain that it can't flush when it ends
            _silence_unread_output()


@cache
def _loaded(name: str) -> Any:
    """The subcommand of that name, built once by a process that carries out several."""
    module, _, attribute = next(names[name] for names in COMMANDS.values() if name in names).partition(".")
    function = getattr(importlib.import_module(f"activedpo_cli.cli.{module}"), attribute)
    if isinstance(function, typer.Typer):
        return get_group(function)
    alone = typer.Typer(add_completion=False, rich_markup_mode="rich", context_settings=app.info.context_settings)
    alone.command(name, cls=HelpedCommand)(function)
    return get_command(alone)


def _docstring(place: str) -> str:
    """Of a function, by `module.name`; of the module where the name is no function's."""
    module, _, attribute = place.partition(".")
    tree = _source(module)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return ast.get_docstring(functions.get(attribute, tree)) or ""


@cache
def _source(module: str) -> ast.Module:
    return ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))


def _told(error: BaseException, command: str | None) -> int:
    """Say what has happened and return the exit code.

    Usage errors of the command-line library are raised again, and unexpected errors where ACTIVEDPO_DEBUG is set.
    """
    interruption_behind = _interruption_behind(error)
    if interruption_behind is not None:
        return _end_by_signal(interruption_behind, command)
    if isinstance(error, ActiveDPOError):
        print_error(error)
        return error.exit_code
    if isinstance(error, Exception) and is_out_of_memory(error):
        print_error(_out_of_memory(error, command))
        return ActiveDPOError.exit_code
    if isinstance(error, OSError):
        if isinstance(error, BrokenPipeError) and _silence_unread_output():
            return READER_GONE_EXIT_CODE
        print_error(_explained(error))
        return ActiveDPOError.exit_code
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        return READER_GONE_EXIT_CODE  # a table's library has dealt with it in its own way
    if isinstance(error, SystemExit):
        print_error(_ended_by_others(error))
        return ActiveDPOError.exit_code
    if _is_click(error) or os.environ.get("ACTIVEDPO_DEBUG"):
        raise _made_harmless(error)
    print_error(_missing_package(error) or _bug(error))
    return ActiveDPOError.exit_code


def _interruption_behind(error: BaseException) -> KeyboardInterrupt | None:
    is_by_signal = is_requested() and not isinstance(error, ActiveDPOError) and not _is_click(error)
    return behind(error) or (Terminated() if is_by_signal else None)


def _end_by_signal(error: KeyboardInterrupt, command: str | None) -> int:
    """Say what is kept and how to go on; nobody may be there to read it, where a terminal was closed."""
    goes_on = command not in LOOKING
    kept = str(error) or ("what was finished is kept" if goes_on else "nothing is kept of it")
    typed = shlex.join(redacted(["activedpo", *sys.argv[1:]]))
    try:
        print_message(f"interrupted: {kept}")
        print_message(f"{'go on' if goes_on else 'begin anew'} with `{typed}`")
    except OSError:
        _silence_unread_output()
    return InterruptedByUserError.exit_code


def _silence_unread_output() -> bool:
    """Send output nowhere whose reader has gone away, as `head` does; says whether there was any."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    unread = [descriptor for descriptor, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in unread:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return bool(unread)


def _explained(error: OSError) -> ActiveDPOError:
    where = f" at `{error.filename}`" if error.filename else ""
    return ActiveDPOError(
        f"{error.strerror or error}{where}", hint="what was finished is kept; the same command goes on from there"
    )


def _ended_by_others(error: SystemExit) -> ActiveDPOError:
    """What to say of a call of `sys.exit`: no code of ours makes one, and what was asked for has not been done."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ActiveDPOError(
        f"code of a library or of yours called `sys.exit({error.code!r})` before the work was done",
        details=[f"at {frame.filename}:{frame.lineno}"],
        hint="what was finished is kept; let it raise an exception that says what is wrong",
    )


def _missing_package(error: BaseException) -> ActiveDPOError | None:
    """What to say where a package is not installed, as in an environment that was made for features alone."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not package or package == __name__.partition(".")[0]:
        return None
    return ActiveDPOError(
        f"this command needs the package `{DISTRIBUTIONS.get(package, package)}`, which is not installed",
        hint="pip install activedpo-cli" if package in OWN_PACKAGES else f"pip install {package}",
    )


def _out_of_memory(error: Exception, command: str | None) -> ActiveDPOError:
    """What to say where memory ran out at a place that has no advice of its own."""
    advice = MEMORY_ADVICE.get(command or "", "a smaller model or shorter responses")
    return ActiveDPOError(
        "memory does not suffice for this",
        details=[str(error).strip().splitlines()[0]] if str(error).strip() else [],
        hint=f"what was finished is kept; free some memory, or try {advice}, and go on with the same command",
    )


def _bug(error: BaseException) -> ActiveDPOError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ActiveDPOError(
        f"unexpected {type(error).__name__}: {error}",
        details=[f"in {frame.filename}:{frame.lineno}", f"activedpo {described()}; this is a bug"],
        hint="set ACTIVEDPO_DEBUG=1 and run the command again to see the traceback",
    )


def _made_harmless(error: BaseException) -> BaseException:
    """What the command-line library will print of the words that it can't read."""
    if _is_click(error) and isinstance(getattr(error, "message", None), str):
        error.message = safe_text(error.message)  # type: ignore[attr-defined]
    return error


def _is_click(error: BaseException) -> bool:
    """Usage errors of the command-line library, which prints them itself."""
    return type(error).__module__.partition(".")[0] in ("click", "typer")
