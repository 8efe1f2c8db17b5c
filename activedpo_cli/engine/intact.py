"""Hashes the inputs of a stage once, before its work, and refuses files that are not what their manifest lists.

An answer that a stage is up to date compares recorded digests alone and hashes nothing.
"""

from collections.abc import Callable, Iterator, Mapping

from activedpo_cli.base.digests import digest_of_file
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.progress import Progress, shown
from activedpo_cli.engine.repairs import repair_of
from activedpo_cli.engine.step import STAGE_INPUT
from activedpo_cli.store.audit import FileFault, file_fault, listed_faults, unknown_files
from activedpo_cli.store.manifest import OutputFile
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

LONG_BYTES = 256 * 2**20
"""Hashing of so many bytes or more shows its progress."""
MOST_NAMED = 5
PROMPTS_NAME = "prompts.jsonl"


def check_inputs(run: Run, inputs: Mapping[str, str], progress: Progress) -> None:
    """Raise InvalidDataError, naming file and repair, where an input is not, byte for byte, what its stage wrote.

    The reference's weights are looked at where they are loaded: `policy.policy`.
    """
    check_prompts(run)
    folders = list(_folders(run, inputs))
    total = sum(output.bytes for folder in folders for output in _listed(folder).values())
    if total < LONG_BYTES:
        for folder in folders:
            check_intact(run, folder)
        return
    with shown(progress, "hashing inputs", total, "bytes") as advance:
        for folder in folders:
            check_intact(run, folder, advance)


def check_intact(run: Run, folder: StageFolder, on_bytes: Callable[[int], None] | None = None) -> bool:
    """The same for one finished stage; logs are left out, since no later stage reads them. Returns True."""
    record = folder.manifest
    if record is None:
        return True
    only_outputs = record.model_copy(update={"logs": {}})
    unknown = [fault for fault in unknown_files(folder, record) if not is_kept_beside(record.stage, fault.name)]
    faults = [*listed_faults(folder, only_outputs, on_bytes), *unknown]
    if faults:
        more = [f"and {len(faults) - MOST_NAMED} more"] if len(faults) > MOST_NAMED else []
        raise InvalidDataError(
            f"`{folder.path}` does not hold what was made there",
            details=[*(f"{fault.name}: {fault.what}" for fault in faults[:MOST_NAMED]), *more],
            hint=repair_of(run, record, faults[0]),
        )
    return True


def check_file(run: Run, folder: StageFolder, name: str) -> None:
    """The same for one small file that is read before the rest is hashed."""
    record = folder.manifest
    if record is None or name not in record.outputs:
        return
    fault = file_fault(folder.path, name, record.outputs[name])
    if fault is not None:
        raise InvalidDataError(
            f"`{folder.path}` does not hold what was made there",
            details=[f"{fault.name}: {fault.what}"],
            hint=repair_of(run, record, fault),
        )


def is_kept_beside(stage: str, name: str) -> bool:
    """Whether a stage keeps a file that its manifest does not list: what scorers said of the initial model.

    `measured-…` are parts of that, by other processes that are at work on it.
    """
    return stage == "initial-evaluation" and (name == "metrics.json" or name.startswith(("rewards-", "measured-")))


def check_prompts(run: Run) -> None:
    """Raise InvalidDataError where `prompts.jsonl` is not the file that the run was made with."""
    fault = prompts_fault(run)
    if fault is not None:
        raise InvalidDataError(
            f"`{run.path / PROMPTS_NAME}` is not the file that this run was made with",
            details=[fault.what],
            hint="put a copy of it back, or make another run with `activedpo init --run OTHER_NAME …`",
        )


def prompts_fault(run: Run) -> FileFault | None:
    """What is wrong with `prompts.jsonl`, None where nothing is."""
    path = run.path / PROMPTS_NAME
    if not path.is_file():
        return FileFault(PROMPTS_NAME, "missing", "it is gone")
    if digest_of_file(path) != run.facts["prompts_digest"]:
        return FileFault(PROMPTS_NAME, "changed", "its content is not what the run was made with")
    return None


def _folders(run: Run, inputs: Mapping[str, str]) -> Iterator[StageFolder]:
    for name in inputs:
        match = STAGE_INPUT.fullmatch(name)
        if match:
            yield run.stage(match["stage"], int(match["iteration"]))
        elif name == "pool":
            yield run.pool


def _listed(folder: StageFolder) -> dict[str, OutputFile]:
    record = folder.manifest
    return record.outputs if record else {}
