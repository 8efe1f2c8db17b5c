"""The reports in a run: their files against their own list, and whether the numbers still are those of the run."""

import json
import shlex
from pathlib import Path
from typing import Any

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.health.findings import Findings
from activedpo_cli.reports.contents import FACTS_NAME
from activedpo_cli.reports.sources import identity_of
from activedpo_cli.store.audit import file_fault
from activedpo_cli.store.jsonl import read_json
from activedpo_cli.store.manifest import OutputFile
from activedpo_cli.store.run import Run


def verify_reports(run: Run, findings: Findings) -> None:
    """Hash every report in the run's folder, and compare what it was made from with what is there."""
    for path in sorted(run.path.glob(f"report*/{FACTS_NAME}")):
        repair = f"activedpo report {shlex.quote(str(run.path))} --force"
        try:
            facts = read_json(path)
            outputs = {name: OutputFile(**entry) for name, entry in facts["outputs"].items()}
            sources, repair = _sources(run, facts), _command(run, facts)
        except (InvalidDataError, LookupError, TypeError, ValueError, AttributeError) as error:
            findings.add(path, "damaged", f"it is not the list of a report: {error}", repair)
            continue
        if path.read_bytes() != json.dumps(facts, indent=1).encode() + b"\n":
            findings.add(path, "changed", "it is not in the form in which it was written", repair)
        _verify_files(path.parent, outputs, repair, findings)
        _verify_sources(run, path, sources, repair, findings)


def _verify_files(folder: Path, outputs: dict[str, OutputFile], repair: str, findings: Findings) -> None:
    for name, output in outputs.items():
        findings.files += 1
        fault = file_fault(folder, name, output, lambda amount: None)
        findings.bytes += output.bytes if fault is None else 0
        if fault is not None:
            findings.add_fault(folder, fault, repair)


def _verify_sources(run: Run, path: Path, sources: dict[str, str], repair: str, findings: Findings) -> None:
    """A source that is another one now makes the report stale; one that was added since is noted."""
    try:
        now = identity_of(run)
    except (InvalidDataError, OSError):
        return  # said where it is
    for name, digest in sources.items():
        if digest != "not finished" and name in now and now[name] != digest:
            findings.add(path, "stale", f"its numbers are of another `{name}` than the one that is there now", repair)
    finished = [name for name, digest in now.items() if digest != "not finished"]
    if sources and any(sources.get(name, "not finished") == "not finished" for name in finished):
        findings.notes.append(
            f"`{path.parent.name}` is older than some of the stages; to bring it up to date: {repair}"
        )


def _sources(run: Run, facts: dict[str, Any]) -> dict[str, str]:
    """What the report took from this run, which it may call by its parent's name too."""
    inputs: dict[str, dict[str, str]] = facts["inputs"]
    if len(inputs) == 1:  # its own, whatever the run was called then
        return dict(next(iter(inputs.values())))
    return next((dict(inputs[name]) for name in _own_names(run) if name in inputs), {})


def _own_names(run: Run) -> tuple[str, str]:
    absolute = run.path.absolute()
    return absolute.name, f"{absolute.parent.name}/{absolute.name}"


def _command(run: Run, facts: dict[str, Any]) -> str:
    """The command that makes the report again; of other runs only the names are known, which stand for those beside it."""
    names = list(facts["inputs"])
    foreign = [name for name in names if name not in _own_names(run)] if len(names) > 1 else []
    folder = run.path.parent
    others = [str((folder.parent if "/" in name else folder) / name) for name in foreign]
    return " ".join(["activedpo report", *(shlex.quote(word) for word in [str(run.path), *others]), "--force"])
