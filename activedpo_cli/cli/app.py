"""The `activedpo` command: its groups of subcommands, and the one place where errors become text and exit codes."""

import os
import select
import signal
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from activedpo_cli import __version__
from activedpo_cli.cli import bench_commands, experiment_commands, look_commands, run_commands, stage_commands
from activedpo_cli.cli.render import print_error, print_message
from activedpo_cli.errors import ActiveDPOError, InterruptedByUserError, Terminated

DISTRIBUTIONS = {"ruamel": "ruamel.yaml"}
"""What installs a package, where it is called otherwise."""
OWN_PACKAGES = frozenset(
    {"accelerate", "datasets", "filelock", "huggingface_hub", "jaxtyping", "jinja2", "matplotlib", "numpy", "peft"}
    | {"pydantic", "rich", "ruamel", "safetensors", "torch", "transformers", "trl", "typer"}
)
"""Imported names of the dependencies: one installation brings all of them, in versions that fit."""
READER_GONE_EXIT_CODE = 128 + signal.SIGPIPE


class ErrorBoundary(TyperGroup):
    """Runs a subcommand; whatever it raises ends as a message and an exit code, never as a bare traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the subcommand."""
        try:
            with _Terminable():
                return super().invoke(ctx)
        except ActiveDPOError as error:
            print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            _say_interrupted(str(error))
            raise typer.Exit(InterruptedByUserError.exit_code) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _silence_unread_output():
                raise typer.Exit(READER_GONE_EXIT_CODE) from error
            print_error(_explained(error))
            raise typer.Exit(ActiveDPOError.exit_code) from error
        except typer.Exit:
            raise
        except Exception as error:
            if _is_click(error) or os.environ.get("ACTIVEDPO_DEBUG"):
                raise
            missing = _missing_package(error)
            print_error(missing or _bug(error))
            raise typer.Exit(ActiveDPOError.exit_code) from error


app = typer.Typer(
    name="activedpo",
    cls=ErrorBoundary,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Choose which response pairs are worth a preference label, buy those labels, align the policy, repeat.",
    epilog="Quick start:  activedpo run --run first --iterations 2",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True)) -> None:
    if version:
        sys.stdout.write(f"activedpo {__version__}\n")
        raise typer.Exit()


run_commands.register(app)
experiment_commands.register(app)
stage_commands.register(app)
look_commands.register(app)
bench_commands.register(app)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # else the interpreter complains about it on its way out
            _silence_unread_output()


class _Terminable:
    """Lets SIGTERM end the work as Ctrl-C does: at once, with finished units kept."""

    def __enter__(self) -> None:
        self._previous = None
        if _in_main_thread():
            self._previous = signal.signal(signal.SIGTERM, _raise_terminated)

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGTERM, self._previous)


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def _raise_terminated(number: int, frame: Any) -> None:
    raise Terminated


def _say_interrupted(what_is_kept: str) -> None:
    print_message(f"interrupted: {what_is_kept or 'what was finished is kept; the same command goes on from there'}")


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


def _missing_package(error: Exception) -> ActiveDPOError | None:
    """What to say where a package is not installed, as in an environment that was made for features alone."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not package or package == __name__.partition(".")[0]:
        return None
    return ActiveDPOError(
        f"this command needs the package `{DISTRIBUTIONS.get(package, package)}`, which is not installed",
        hint="pip install activedpo-cli" if package in OWN_PACKAGES else f"pip install {package}",
    )


def _bug(error: Exception) -> ActiveDPOError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return ActiveDPOError(
        f"unexpected {type(error).__name__}: {error}",
        details=[f"in {frame.filename}:{frame.lineno}", f"activedpo {__version__}; this is a bug"],
        hint="set ACTIVEDPO_DEBUG=1 and run the command again to see the traceback",
    )


def _is_click(error: Exception) -> bool:
    """Usage errors of the command-line library, which prints them itself."""
    return type(error).__module__.partition(".")[0] in ("click", "typer")
