"""What `verify` and `doctor` print."""

from typing import Any

from activedpo_cli.cli.render import print_result

SIGNS = {"ok": "✓", "warning": "!", "failure": "✗"}


def print_verification(found: dict[str, Any], *, quiet: bool) -> None:
    """Each problem with its repair, then the notes; when all is well how much was looked at."""
    for problem in found["problems"]:
        print_result(f"✗ {problem['file']}  {problem['kind']}: {problem['what']}\n  repair: {problem['repair']}")
    if quiet:
        return
    for note in found["notes"]:
        print_result(f"· {note}")
    what = "sound" if found["sound"] else "not sound"
    print_result(f"{found['run']} is {what}: {found['files']} files, {found['bytes'] / 1e6:,.1f} MB hashed")


def print_checks(found: dict[str, Any]) -> None:
    """A line for each check; below it what to do, where there is something."""
    width = max(len(check["name"]) for check in found["checks"])
    for check in found["checks"]:
        print_result(f"{SIGNS[check['state']]} {check['name']:<{width}}  {check['says']}")
        if check["do"]:
            print_result(f"  {'':<{width}}  {check['do']}")
