"""Choose which response pairs are worth a preference label (ActiveDPO, arXiv 2505.19241).

The names here are for notebooks and training scripts, each loaded on its first use; docs/python.md says what they promise.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.version import __version__ as __version__

if TYPE_CHECKING:
    from activedpo_cli.base.errors import ActiveDPOError as ActiveDPOError
    from activedpo_cli.python.choosing import Choice as Choice
    from activedpo_cli.python.choosing import choose as choose
    from activedpo_cli.python.features import Features as Features
    from activedpo_cli.python.featurizing import featurize as featurize
    from activedpo_cli.python.reading import Records as Records
    from activedpo_cli.python.reading import Run as Run
    from activedpo_cli.python.reading import read_run as read_run

PLACES = {
    "ActiveDPOError": "base.errors",
    "Choice": "python.choosing",
    "Features": "python.features",
    "Records": "python.reading",
    "Run": "python.reading",
    "choose": "python.choosing",
    "featurize": "python.featurizing",
    "read_run": "python.reading",
}
"""The module of each public name."""
__all__ = ["ActiveDPOError", "Choice", "Features", "Records", "Run", "choose", "featurize", "read_run"]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
