"""`activedpo ls`: what there is to choose from, each with one line of help."""

from dataclasses import asdict
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.presets import available_presets
from activedpo_cli.models.built_in import BUILT_IN_MODEL
from activedpo_cli.models.resolve import ALIASES
from activedpo_cli.run.evidence import findings

BUILT_IN = {BUILT_IN_MODEL: "the built-in model: 1.5 million parameters, writes very short stories"}
FOLDERS = {"methods": "acquisition", "oracles": "oracles", "prompts": "prompts", "datasets": "prompts"} | {
    "formats": "formats",
    "exporters": "exporters",
}


METHODS = "methods"
EXPERIMENTS = "experiments"
"""A kind that the package `experiments` lists."""
RUNS = "runs"
"""A kind that `run/listing.py` lists."""
ALSO = ("oracles", "prompts", "formats", "exporters", "models", "presets", EXPERIMENTS, RUNS)
"""Kinds beside the methods."""


def choices(what: str) -> dict[str, str]:
    """Name → help of one kind of choice; raises UsageError for an unknown kind."""
    if what in FOLDERS:
        return discovery.available(FOLDERS[what])
    if what == "models":
        return BUILT_IN | {alias: f"hub model {target}" for alias, target in ALIASES.items()}
    if what == "presets":
        return available_presets()
    known = [*FOLDERS, "models", "presets", EXPERIMENTS, RUNS]
    meant = did_you_mean(what, known)
    raise UsageError(f"`{what}` can't be listed{meant}", details=[f"known: {', '.join(known)}"])


def method_choices() -> dict[str, dict[str, Any]]:
    """Name → help, the columns needed, and what was measured against random choice, of every method."""
    return {
        name: {
            "needs": list(discovery.declared_needs("acquisition", name)),
            "help": text,
            "evidence": [asdict(finding) for finding in findings(name)],
        }
        for name, text in choices("methods").items()
    }
