"""A Python function of yours rates the responses: `python:MODULE:FUNCTION`.

The function is called as `function(prompts, responses)` with two lists of equal length and returns one number for each
response, higher for better, as a list, an array or a tensor. A prompt is a string, or, where prompts are messages, the
list of messages itself. The module is looked for in the working directory first, then where Python looks anyway. What it
prints goes to stderr, since stdout has the results of the command.
"""

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from activedpo_cli.base.digests import digest_of_file
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, OracleNotFoundError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.printing import printing_to_stderr
from activedpo_cli.base.records import PromptText, RecordedPreference
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.base.threads import threads_for
from activedpo_cli.oracles.base import Comparison, SeedOfPair, Verdict, compare_by_score, require_finite

ASKS_PEOPLE = False
SCORES_TEXT = True


def build(
    argument: str | None, settings: LabelSettings, device: str, *, preferences: Sequence[RecordedPreference] = ()
) -> "FunctionOracle":
    """Import the module and find the function.

    Raises:
        UsageError: There is no such module or function.
        ActiveDPOError: The module fails while it is imported.

    """
    module_name, function_name = _parse(argument)
    file = _find_module(module_name)
    module = _import_module(module_name, file)
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(
            f"`{file}` has no function `{function_name}`" + did_you_mean(function_name, known),
            details=[f"functions there: {', '.join(known) or 'none'}"],
        )
    return FunctionOracle(function, f"python:{argument}", file, settings)


def identity(argument: str | None, settings: LabelSettings) -> dict[str, str]:
    """The SHA-256 of the module's file, found without importing it; files that it imports are not covered."""
    module_name, _ = _parse(argument)
    return {f"python:{argument}": digest_of_file(_find_module(module_name))}


class FunctionOracle:
    """Scores by calling a user's function, and reports what goes wrong in it without a traceback."""

    def __init__(self, function: Callable[..., Any], name: str, file: Path, settings: LabelSettings) -> None:
        self._function = function
        self._name = name
        self._file = file
        self._settings = settings

    def score(self, prompts: Sequence[PromptText], responses: Sequence[str]) -> list[float]:
        """What the function returns, one finite number for each response."""
        try:
            with threads_for(None), printing_to_stderr():
                returned = self._function(list(prompts), list(responses))
                values = _listed(returned)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # `sys.exit` in the function is its failure too, and not the end of the command
            raise _failure(f"the oracle `{self._name}` failed", error, self._file) from error
        scores = self._as_floats(returned, values)
        if len(scores) != len(responses):
            raise InvalidDataError(
                f"the oracle `{self._name}` returned {len(scores)} scores for {len(responses)} responses"
            )
        require_finite(scores, f"the oracle `{self._name}`")
        return scores

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """Verdicts by score."""
        return compare_by_score(self, comparisons, self._settings, seed_of_pair)

    def _as_floats(self, returned: Any, values: list[Any] | None) -> list[float]:
        try:
            if values is None:
                raise TypeError(f"{type(returned).__name__} holds no numbers in the order of the responses")
            return [_number(value) for value in values]
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidDataError(
                f"the oracle `{self._name}` returned {type(returned).__name__}, not one number for each response",
                details=[str(error)],
            ) from error


def _listed(returned: Any) -> list[Any] | None:
    """What was returned as a list; None where it has no order, or only that of characters, bytes or keys.

    A generator runs here, so that this may raise whatever the function can.
    """
    if isinstance(returned, str | bytes | bytearray | Mapping | AbstractSet):
        return None
    if hasattr(returned, "tolist"):
        returned = returned.tolist()
    return list(returned) if hasattr(returned, "__iter__") or hasattr(returned, "__getitem__") else None


def _number(value: Any) -> float:
    """A score; raises TypeError for text, also where it spells a number, and OverflowError beyond what a float holds."""
    if isinstance(value, str | bytes | bytearray):
        raise TypeError(f"{value[:40]!r} is no number")
    return float(value)


def _parse(argument: str | None) -> tuple[str, str]:
    module_name, _, function_name = (argument or "").partition(":")
    if not (function_name.isidentifier() and all(part.isidentifier() for part in module_name.split("."))):
        raise UsageError(
            f"`python:{argument or ''}` does not name a module and a function", hint="write `python:MODULE:FUNCTION`"
        )
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        raise UsageError(f"`{module_name}` is the name of a module of Python itself", hint="rename your file")
    return module_name, function_name


def _find_module(module_name: str) -> Path:
    here = Path.cwd()
    importlib.invalidate_caches()
    search: Sequence[str] | None = [str(here), *sys.path]
    parts = module_name.split(".")
    spec = None
    for depth in range(1, len(parts) + 1):
        # By its last name alone: a folder without `__init__.py` is looked up through its parent if it is loaded, else not.
        spec = PathFinder.find_spec(parts[depth - 1], list(search)) if search else None
        if spec is None and depth == 1:  # an editable install is found by a hook, not through sys.path
            specs = (finder.find_spec(parts[0], None) for finder in sys.meta_path)
            spec = next((found for found in specs if found is not None), None)
        search = spec.submodule_search_locations if spec else None
    if spec is None or not spec.has_location or spec.origin is None:
        raise OracleNotFoundError(
            f"there is no module `{module_name}`"
            + did_you_mean(module_name, [path.stem for path in here.glob("*.py")]),
            details=[f"looked in {here} and where Python looks for modules"],
            hint=f"write `{module_name.replace('.', '/')}.py`, or change to the folder that holds it",
        )
    return Path(spec.origin).resolve()


def _import_module(module_name: str, file: Path) -> ModuleType:
    """Import from the working directory, always from the file as it is now, leaving `sys.path` as it was."""
    here = str(Path.cwd())
    loaded = getattr(sys.modules.get(module_name), "__file__", None)
    if loaded is not None and not ("site-packages" in file.parts and Path(loaded).resolve() == file):
        del sys.modules[module_name]
    writes_bytecode = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, here)
    try:
        with printing_to_stderr():
            module = importlib.import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failure(f"`{file}` cannot be imported", error, file) from error
    finally:
        sys.path.remove(here)
        sys.dont_write_bytecode = writes_bytecode
    if module.__file__ is None or Path(module.__file__).resolve() != file:
        raise UsageError(f"another module named `{module_name}` is already loaded", hint=f"rename `{file}`")
    return module


def _failure(message: str, error: BaseException, file: Path) -> ActiveDPOError:
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        frame = next((frame for frame in reversed(frames) if Path(frame.filename).resolve() == file), frames[-1])
        where = f"{frame.filename}:{frame.lineno}"
    return ActiveDPOError(message, details=[f"{type(error).__name__}: {error}", f"at {where}"])
