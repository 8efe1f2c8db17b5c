"""`activedpo export --format`: the preferences that a run has bought, as another trainer reads them.

What goes out are the rows of `label/preferences.jsonl` of closed stages: one for each selected pair of which a response was
preferred, by the answer that trains. Ties, pairs of which both are bad and skipped ones are left out and counted; control
pairs, gold pairs, repetitions and what further people said are in none of these files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError, NotReadyError, RefusedError, UsageError
from activedpo_cli.base.progress import Progress
from activedpo_cli.exporters import _hub
from activedpo_cli.exporters.base import Exported
from activedpo_cli.run.cards import CARD, dataset_card, is_dataset_card
from activedpo_cli.run.policy_facts import facts_of_answers
from activedpo_cli.run.records import preference_records
from activedpo_cli.store.files import write_bytes
from activedpo_cli.store.run import Run

OUTCOMES = {"tie": "tied", "both_bad": "both bad", "skip": "skipped", "unanswered": "without an answer"}
"""What a closed stage counts beside preferences, in words."""


@dataclass(frozen=True, kw_only=True)
class ExportRequest:
    """The command as it was typed; all iterations without one, and nothing is pushed without a name."""

    format_name: str
    output: Path
    iteration: int | None = None
    push: str | None = None
    public: bool = False


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written, or found written already.

    Attributes:
        files: Their paths.
        preferences: How many they hold.
        iterations: From which iterations.
        left_out: How many pairs are not among them, by the reason in words.
        warnings: What the person should know.
        usage: Lines that make the trainer read the files.
        was_there: Whether all files were there with this content.
        pushed: Where they are on the hub, None where nothing was pushed.

    """

    files: Sequence[Path]
    preferences: int
    iterations: Sequence[int]
    left_out: Mapping[str, int]
    warnings: Sequence[str]
    usage: Sequence[str]
    was_there: bool
    pushed: _hub.Pushed | None


def export_preferences(run: Run, request: ExportRequest, progress: Progress) -> ExportResult:
    """Write the preferences of closed iterations to a folder, each file whole or not at all.

    Raises:
        UsageError: There is no such format, the folder is a file or lies in the run, or the hub knows no such names.
        NotReadyError: The iteration, or any at all, is not labelled, or its labels are stale.
        InvalidDataError: A file of the run was changed, or nothing was preferred.
        RefusedError: A file of that name holds something else.
        ActiveDPOError: The hub did not take the data set.

    """
    exporter = discovery.load("exporters", request.format_name)
    _check_place(run, request.output)
    if request.push is not None:
        _hub.check_name(request.push, "dataset")
    elif request.public:
        raise UsageError("--public is for what goes to the hub", hint="--push ORG/NAME --public")
    iterations = _iterations(run, request.iteration, progress)
    preferences, counts = _bought(run, iterations)
    exported: Exported = exporter.export(preferences, request.output)
    left_out = {**{OUTCOMES[name]: number for name, number in counts.items() if number}, **exported.left_out}
    if not exported.rows:
        raise InvalidDataError(
            f"`{run.path}` has no preference to export", details=[f"{number} {why}" for why, number in left_out.items()]
        )
    contents = {**exported.files, CARD: _card(run, request, exported, iterations).encode()}
    files = {name: request.output / name for name in contents}
    was_there = _write({files[name]: content for name, content in contents.items()})
    return ExportResult(
        files=list(files.values()),
        preferences=len(exported.rows),
        iterations=iterations,
        left_out=left_out,
        warnings=exported.warnings,
        usage=exported.usage,
        was_there=was_there,
        pushed=None if request.push is None else _hub.push(files, request.push, "dataset", public=request.public),
    )


def _card(run: Run, request: ExportRequest, exported: Exported, iterations: Sequence[int]) -> str:
    return dataset_card(
        facts_of_answers(run, iterations),
        rows=len(exported.rows),
        columns=list(exported.rows[0]),
        file=next(iter(exported.files)),
        format_name=request.format_name,
    )


def _check_place(run: Run, output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"`{output}` is not a folder", hint="--output FOLDER")
    if output.resolve().is_relative_to(run.path.resolve()):
        raise UsageError(
            f"`{output}` lies in the run, which holds its own files alone", hint="--output FOLDER elsewhere"
        )


def _iterations(run: Run, iteration: int | None, progress: Progress) -> list[int]:
    if iteration is not None:
        return [iteration]
    found = {number: run.stage("label", number).manifest is not None for number in run.iterations()}
    closed = [number for number, is_closed in found.items() if is_closed]
    if not closed:
        newest = max(found, default=1)
        raise NotReadyError(f"no iteration of `{run.path}` is labelled", hint=run.next_command("label", newest))
    still_open = [str(number) for number, is_closed in found.items() if not is_closed]
    if still_open:
        which = f"iteration {still_open[0]} is" if len(still_open) == 1 else f"iterations {', '.join(still_open)} are"
        progress.warn(f"{which} not labelled yet, and not part of the export")
    return closed


def _bought(run: Run, iterations: Sequence[int]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """The preferences of iterations, and how many pairs have none, by their outcome."""
    preferences: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for number in iterations:
        rows, without = preference_records(run, number)
        preferences += rows
        counts.update(without)
    return preferences, counts


def _write(files: Mapping[Path, bytes]) -> bool:
    """Write what is not there yet; says whether all was. Nothing is written where anything else has one of the names.

    A card stays as it is, whatever it says by now.
    """
    missing = []
    for path, content in files.items():
        if not path.exists():
            missing.append(path)
        elif (
            path.name == CARD and path.is_file() and is_dataset_card(path.read_text(encoding="utf-8", errors="replace"))
        ):
            continue  # a person may have added to it, such as a licence
        elif not path.is_file() or path.read_bytes() != content:
            raise RefusedError(
                f"`{path}` is there and holds something else",
                details=["another run, another choice of iterations, or answers that came since"],
                hint="--output ANOTHER_FOLDER",
            )
    for path in missing:
        write_bytes(path, files[path])
    return not missing
