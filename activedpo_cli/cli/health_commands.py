"""Commands that look for what is wrong: in a run, and in the machine that it is on."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from activedpo_cli.cli.options import DeviceOption, JsonOption, QuietOption, RunOption, SetOption
from activedpo_cli.cli.render import make_progress, print_json, print_result

SIGNS = {"ok": "✓", "warning": "!", "failure": "✗", "refused": "✗", "not asked": "·"}


def verify(run: RunOption = None, quiet: QuietOption = False, json: JsonOption = False) -> None:
    """Hash every file of a run again, and name what is wrong and the command that repairs it.

    Files that are missing, cut off, changed or unknown, torn answers, stages made from inputs that were made again since,
    stages of another run, reports of other numbers. Changes nothing. Exits 4 where something is wrong.

    Example:   activedpo verify --run tldr
    """
    from activedpo_cli.base.errors import InvalidDataError
    from activedpo_cli.health.verify import verify_run
    from activedpo_cli.store.run import Run, run_path

    opened = Run.open(run_path(run))
    found = verify_run(opened, make_progress(quiet))
    print_json(found) if json else _print_verification(found, quiet=quiet)
    if not found["sound"]:
        count = len(found["problems"])
        raise InvalidDataError(f"`{opened.path}` has {'a problem' if count == 1 else f'{count} problems'}")


def doctor(
    folder: Annotated[
        Optional[Path],
        typer.Option("--folder", metavar="FOLDER", help="Where runs are to be. [default: runs, else where you are]"),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Also ask the hub for an answer; nothing else here uses the network.")
    ] = False,
    model: Annotated[
        Optional[str],
        typer.Option(
            "--model", metavar="MODEL", help="Look at a model instead: whether runs can use it, and how else."
        ),
    ] = None,
    set_: SetOption = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Look at versions, devices, memory, disk, and whether the file system renames, locks and syncs as runs need it.

    Exits 1 where something is missing that runs need; warnings alone exit 0. With --model, settings such as
    --set adapter.target_modules=all-linear say how it is to be used, and it exits 3 where a run would refuse it so.

    Example:   activedpo doctor --folder /scratch/runs

    Example:   activedpo doctor --model gemma-2b --set adapter.target_modules=all-linear
    """
    if model is not None:
        _look_at_model(model, set_, device, json)
        return
    _look_at_machine(folder, network, json)


def _look_at_machine(folder: Path | None, network: bool, json: bool) -> None:
    from activedpo_cli.base.errors import ActiveDPOError
    from activedpo_cli.health.doctor import examine

    checks = examine(folder, network=network)
    print_json(checks) if json else _print_checks(checks)
    failed = [check["name"] for check in checks["checks"] if check["state"] == "failure"]
    if failed:
        raise ActiveDPOError(f"not fit for runs: {', '.join(failed)}")


def _look_at_model(model: str, assignments: list[str] | None, device: str, json: bool) -> None:
    from activedpo_cli.base.config import build_config, nested
    from activedpo_cli.base.errors import RefusedError
    from activedpo_cli.base.printing import printing_to_stderr
    from activedpo_cli.cli.options import all_given
    from activedpo_cli.engine.step import Execution
    from activedpo_cli.health.model_checks import examine_model

    config = build_config(nested(all_given({"model.name": model}, assignments)))
    with printing_to_stderr():
        checks = examine_model(config, Execution(device=device))
    print_json(checks) if json else _print_checks(checks)
    refused = [check for check in checks["checks"] if check["state"] == "refused"]
    if refused:
        raise RefusedError(f"a run would refuse `{model}` with these settings", hint=refused[0]["do"] or None)


def _print_verification(found: dict[str, Any], *, quiet: bool) -> None:
    """Each problem with its repair, then the notes; when all is well how much was looked at."""
    for problem in found["problems"]:
        print_result(f"✗ {problem['file']}  {problem['kind']}: {problem['what']}\n  repair: {problem['repair']}")
    if quiet:
        return
    for note in found["notes"]:
        print_result(f"· {note}")
    what = "sound" if found["sound"] else "not sound"
    print_result(f"{found['run']} is {what}: {found['files']} files, {found['bytes'] / 1e6:,.1f} MB hashed")


def _print_checks(found: dict[str, Any]) -> None:
    """A line for each check; below it what to do, where there is something."""
    width = max(len(check["name"]) for check in found["checks"])
    for check in found["checks"]:
        says = check["says"] or check["state"]
        print_result(f"{SIGNS[check['state']]} {check['name']:<{width}}  {says}")
        if check["do"]:
            print_result(f"  {'':<{width}}  {check['do']}")
