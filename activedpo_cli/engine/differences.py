"""Compares given flags, settings and inputs with the record of earlier work; says what differs, and refuses."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from activedpo_cli.base.config import flat, with_changes
from activedpo_cli.base.digests import digest_of_file
from activedpo_cli.base.errors import InvalidDataError, RefusedError
from activedpo_cli.base.looking_once import once
from activedpo_cli.base.settings import SECTIONS, Config, setting_keys
from activedpo_cli.base.tables import check_file
from activedpo_cli.base.yaml_text import read_yaml
from activedpo_cli.engine.step import Execution, again
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.run import SFT, Run

FIXED_SECTIONS = ("model", "prompts")
"""Settings that are fixed when the run is made."""


def all_settings(config: Config, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The checked values of some settings, in the form in which they are stored."""
    values = flat(config, "seed", *SECTIONS)
    return {key: values[key] for key in keys if key in values}


def given_differences(
    run: Run, record: Started | None, given: Mapping[str, Any], own: Collection[str] = ()
) -> list[str]:
    """The given settings that differ from those in a record, as lines of text.

    A setting of `own` that the record lacks counts as its default: an older version wrote that record.

    Raises RefusedError for those that are fixed when the run is made, which no `--force` can change.
    """
    if not given:
        return []
    made_with = run.config
    wanted = all_settings(with_changes(made_with, given), given)
    fixed = all_settings(made_with, {key: None for key in given if is_fixed(key)})
    differences = [
        f"{key}  {fixed[key]} → {value}"
        for key, value in wanted.items()
        if key in fixed and not _same(key, fixed[key], value)
    ]
    if differences:
        raise RefusedError(
            f"`{run.path}` was made with other settings, which are fixed for a run",
            details=differences,
            hint="make another run with `activedpo init --run OTHER_NAME …`",
        )
    recorded = {**all_settings(Config(), dict.fromkeys(own)), **record.settings} if record else {}
    return [
        f"{key}  {recorded[key]} → {value}"
        for key, value in wanted.items()
        if key in recorded and key not in fixed and not _same(key, recorded[key], value)
    ]


def refuse_changed_fixed_settings(run: Run) -> None:
    """Raise RefusedError when `config.yaml` was edited where it may not be: in what is fixed when the run is made."""
    made_with: Mapping[str, Any] = run.facts.get("fixed", {})
    now = all_settings(run.config, made_with)
    changed = [
        f"{key}  {made_with[key]} → {value}" for key, value in now.items() if not _same(key, made_with[key], value)
    ]
    if changed:
        raise RefusedError(
            f"`{run.path}/config.yaml` changes settings that are fixed for a run",
            details=changed,
            hint="put them back, or make another run with `activedpo init --run OTHER_NAME …`",
        )
    _refuse_lost_settings(run)
    if run.config.sft.data and run.has_begun() and not run.stage(SFT, 0).manifest:
        raise RefusedError(
            f"`{run.path}/config.yaml` sets `sft.data`, and the run has begun with its reference as it is",
            hint="set it back to null, or fine-tune in a run of its own: `activedpo sft --run OTHER_NAME …`",
        )


def _refuse_lost_settings(run: Run) -> None:
    """Raise InvalidDataError where `config.yaml` names fewer settings than it was made with.

    One that was cut off is YAML still, and defaults would silently take the place of what was lost.
    """
    written = run.facts.get("config_settings")
    if not isinstance(written, int):
        return
    lost = unnamed_settings(run.config_text)
    known = number_of_settings()
    if known - len(lost) < written:
        shown = ", ".join(lost[:8]) + (f" and {len(lost) - 8} more" if len(lost) > 8 else "")
        raise InvalidDataError(
            f"`{run.path}/config.yaml` has lost {written - known + len(lost)} of the settings it was made with",
            details=[f"not named there: {shown}"],
            hint="put a copy of it back, or write each of these settings there, so that no default takes its place unseen",
        )


def number_of_settings() -> int:
    """How many settings a whole `config.yaml` names."""
    return 1 + len(setting_keys())


def unnamed_settings(text: str) -> list[str]:
    """The settings that a `config.yaml` does not name, as dotted keys."""
    values = read_yaml(text)
    return [key for key in ["seed", *setting_keys()] if not _is_named(values, key.split("."))]


def _is_named(values: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(values, Mapping) or part not in values:
            return False
        values = values[part]
    return True


def input_differences(record: Started, inputs: Mapping[str, str]) -> list[str]:
    """Inputs that are no longer what the record was made from, as lines of text."""
    if record.inputs == inputs:
        return []
    names = sorted({*record.inputs, *inputs})
    return [
        f"input {name}  {_short(record.inputs.get(name))} → {_short(inputs.get(name))}"
        for name in names
        if record.inputs.get(name) != inputs.get(name)
    ]


def differences_of_work(made: Started, wanted: Started, files: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """In what begun or finished work is other than what is wanted, as lines of text; empty where it is the same.

    Args:
        made: The record that is there; settings that it lacks had their default.
        wanted: What the record would say of work that begins now.
        files: Settings that name a file, and the name of its content among the inputs.

    """
    recorded = {**all_settings(Config(), dict.fromkeys(wanted.settings)), **made.settings}
    moved = {key for key, name in files.items() if made.inputs.get(name) == wanted.inputs.get(name)}
    lines = [
        f"{key}  {recorded.get(key)} → {value}"
        for key, value in wanted.settings.items()
        if key not in moved and not _same(key, recorded.get(key), value)
    ]
    return [*lines, *version_difference(made, wanted.stage_version), *input_differences(made, wanted.inputs)]


def version_difference(record: Started, version: int, standing: Collection[int] = ()) -> list[str]:
    """Whether work was done by another version of its step than this or one that stands, as a line of text; else empty."""
    stands = record.stage_version in (version, *standing)
    return [] if stands else [f"version of the stage  {record.stage_version} → {version}"]


def with_known_files(record: Started | None, files: Mapping[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
    """Given settings in which a file that work was made from goes by the path under which its record knows it."""
    known = dict(given)
    for key, name in files.items():
        if record is None or not isinstance(given.get(key), str) or given[key] == record.settings.get(key):
            continue
        path = Path(given[key])
        if path.is_file() and digest_of_file(path) == record.inputs.get(name):
            known[key] = record.settings[key]
    return known


def digest_of_known(record: Started | None, key: str, name: str, value: str) -> str:
    """The digest of a file that a setting names: as it is, or as recorded where the file of known work is gone.

    Args:
        record: The work that was made from a file; None where there is none, or it can't be read.
        key: The setting.
        name: The name of the file's content among the inputs.
        value: The path as the setting gives it now.

    Raises:
        InvalidDataError: There is no regular file at the path, and the record is not of one there.

    """
    path = Path(value)
    if record and not path.exists() and record.settings.get(key) == value and name in record.inputs:
        return record.inputs[name]
    check_file(path)
    return once(("file", path), lambda: digest_of_file(path))


def refuse(
    run: Run,
    stage: str,
    iteration: int,
    differences: list[str],
    given: Mapping[str, Any],
    execution: Execution | None = None,
) -> NoReturn:
    """Say what differs, and by which command the given settings would replace what is there.

    That is the one that was typed, or in a loop one with the settings that differ.
    """
    execution = execution or Execution()
    differing = {line.partition("  ")[0] for line in differences}
    words = [] if execution.typed else [f"{key}={_as_typed(given[key])}" for key in given if key in differing]
    if stage == SFT and run.has_begun():
        raise RefusedError(
            f"`{run.stage(stage, iteration).path}` was made with other settings or inputs",
            details=differences,
            hint="the run has begun with what *sft* made; fine-tune in a run of its own: `activedpo sft --run OTHER_NAME …`",
        )
    assignments = [part for word in words for part in ("--set", word)]
    command = again(run, stage, iteration, execution, *assignments, "--force")
    raise RefusedError(
        f"`{run.stage(stage, iteration).path}` was made with other settings or inputs",
        details=differences,
        hint=f"to make it again, keeping the old one in `{run.stale}` (what was made from it then is stale): `{command}`",
    )


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def is_fixed(key: str) -> bool:
    """Whether a setting is fixed when the run is made."""
    return key == "seed" or key.partition(".")[0] in FIXED_SECTIONS


def _same(key: str, old: Any, new: Any) -> bool:
    if (
        key in ("model.name", "prompts.source", "generate.responses", "sft.data")
        and Path(str(old)).exists()
        and Path(str(new)).exists()
    ):
        return Path(old).resolve() == Path(new).resolve()
    return old == new


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"
