"""What a shell offers when Tab is pressed: runs, iterations, settings and choices. Nothing here fails or loads a model."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import typer

from activedpo_cli.base.errors import ActiveDPOError


def _quiet(offer: Callable[[Any, str], Iterable[str]]) -> Callable[..., list[str]]:
    """What `offer` names of the words that begin as typed; nothing where it can't tell, since a shell shows no reason."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        with suppress(ActiveDPOError, OSError, ValueError):
            return [word for word in offer(ctx, incomplete) if word.startswith(incomplete)]
        return []

    return complete


@_quiet
def run_names(ctx: Any, incomplete: str) -> Iterable[str]:
    """The runs in `runs/` by name; where a path is typed, the folders there that are runs or lead on."""
    if "/" not in incomplete:
        return sorted(path.parent.name for path in Path("runs").glob("*/run.json"))
    place = incomplete.rpartition("/")[0] + "/"
    folders = sorted(path for path in Path(place).glob("[!.]*") if path.is_dir())
    return [f"{place}{path.name}" + ("" if (path / "run.json").is_file() else "/") for path in folders]


@_quiet
def iterations(ctx: Any, incomplete: str) -> Iterable[str]:
    """The iterations of the run that is named before, and the one that would come next."""
    from activedpo_cli.store.run import Run, run_path

    there = Run(run_path(ctx.params.get("run"))).iterations()
    return [str(number) for number in range(1, max(there, default=0) + 2)]


@_quiet
def setting_names(ctx: Any, incomplete: str) -> Iterable[str]:
    """Every setting, and those of every method, with the sign behind it."""
    from activedpo_cli.base import discovery
    from activedpo_cli.base.settings import setting_keys

    names = [key for key in setting_keys() if not key.endswith(".methods")]
    own = [
        f"select.methods.{method.replace('-', '_')}.{name}"
        for method in discovery.available("acquisition")
        for name in discovery.setting_names("acquisition", method)
    ]
    return [f"{name}=" for name in ["seed", *names, *sorted(own)]]


@_quiet
def methods(ctx: Any, incomplete: str) -> Iterable[str]:
    """The names of acquisition methods."""
    return choices_of("methods")


@_quiet
def kinds(ctx: Any, incomplete: str) -> Iterable[str]:
    """What `ls` can list."""
    from activedpo_cli.run.choices import ALSO

    return ["methods", *ALSO]


def choices_of(kind: str) -> Iterable[str]:
    """The names that `ls` lists of a kind."""
    from activedpo_cli.run.choices import choices

    return choices(kind)


BY_SETTING: dict[str, Callable[..., list[str]]] = {
    "select.method": methods,
    "label.oracle": _quiet(lambda ctx, incomplete: choices_of("oracles")),
    "model.name": _quiet(lambda ctx, incomplete: choices_of("models")),
}
"""What the flags of these settings offer."""
formats = _quiet(lambda ctx, incomplete: choices_of("formats"))
exporters = _quiet(lambda ctx, incomplete: choices_of("exporters"))
trackers = _quiet(lambda ctx, incomplete: ("tensorboard", "wandb", "trackio", "mlflow", "none"))
presets = _quiet(lambda ctx, incomplete: choices_of("presets"))
