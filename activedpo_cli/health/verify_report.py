"""The reports in a run: their files against their record, and whether the numbers still are those of the run."""

import json
import shlex
from collections.abc import Iterator

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.health.findings import Findings
from activedpo_cli.health.verify_stage import faults_of
from activedpo_cli.reports.build import inputs_about, record_of
from activedpo_cli.reports.contents import FACTS_NAME
from activedpo_cli.reports.sources import identity_of
from activedpo_cli.store.audit import FileFault, listed_faults
from activedpo_cli.store.manifest import MANIFEST_NAME, Manifest
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder


def verify_reports(run: Run, findings: Findings) -> None:
    """Hash every report in the run's folder, and compare what it was made from with what is there."""
    for folder in (StageFolder(path) for path in sorted(run.path.glob("report*")) if path.is_dir()):
        name = MANIFEST_NAME if folder.has(MANIFEST_NAME) else FACTS_NAME
        try:
            record = record_of(folder)
        except InvalidDataError as error:
            again = f"activedpo report {shlex.quote(str(run.path))} --force"
            findings.add(folder.path / name, "damaged", error.in_one_line, again)
            continue
        if record is None:
            continue
        repair = _command(run, record)
        faults = faults_of if name == MANIFEST_NAME else _faults_of_older
        for fault in faults(folder, record, findings):
            findings.add_fault(folder.path, fault, repair)
        _verify_sources(run, folder, name, record, repair, findings)


def _faults_of_older(folder: StageFolder, record: Manifest, findings: Findings) -> Iterator[FileFault]:
    """The same of a report whose record is `report.json`, as an earlier version made it."""
    text = (folder.path / FACTS_NAME).read_bytes()
    if text != json.dumps(json.loads(text), indent=1).encode() + b"\n":
        yield FileFault(FACTS_NAME, "changed", "it is not in the form in which it was written")
    findings.files += len(record.outputs)
    yield from listed_faults(folder, record, findings.advance)


def _verify_sources(
    run: Run, folder: StageFolder, name: str, record: Manifest, repair: str, findings: Findings
) -> None:
    """A source that is another one now makes the report stale; one that was added since is noted."""
    try:
        now = identity_of(run)
    except (InvalidDataError, OSError):
        return  # reported where that file itself is verified
    sources = inputs_about(record, _own_names(run))
    for source, digest in sources.items():
        if digest != "not finished" and source in now and now[source] != digest:
            what = f"its numbers are of another `{source}` than the one that is there now"
            findings.add(folder.path / name, "stale", what, repair)
    finished = [source for source, digest in now.items() if digest != "not finished"]
    if sources and any(sources.get(source, "not finished") == "not finished" for source in finished):
        findings.notes.append(
            f"`{folder.path.name}` is older than some of the stages; to bring it up to date: {repair}"
        )


def _own_names(run: Run) -> tuple[str, str]:
    absolute = run.path.absolute()
    return absolute.name, f"{absolute.parent.name}/{absolute.name}"


def _command(run: Run, record: Manifest) -> str:
    """The command that makes the report again; of other runs only the names are known, which stand for those beside it."""
    names = record.settings["runs"]
    foreign = [name for name in names if name not in _own_names(run)] if len(names) > 1 else []
    folder = run.path.parent
    others = [str((folder.parent if "/" in name else folder) / name) for name in foreign]
    return " ".join(["activedpo report", *(shlex.quote(word) for word in [str(run.path), *others]), "--force"])
