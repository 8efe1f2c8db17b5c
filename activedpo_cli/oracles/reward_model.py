"""A reward model rates the responses: `reward-model:FOLDER`, `reward-model:ORG/NAME[@REVISION]`, or `reward-model:tiny`.

The last is built in and judges the built-in model's stories.
Any sequence classifier with one output works, such as OpenAssistant/reward-model-deberta-v3-large-v2. Weights have to
be in the safetensors format and no code that comes with a model is run. Scores are computed in float32.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.records import RecordedPreference
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.models.built_in import REWARD_MODEL, is_built_in
from activedpo_cli.models.quick_digest import quick_digest

if TYPE_CHECKING:
    from activedpo_cli.oracles._sequence_classifier import SequenceClassifier

ASKS_PEOPLE = False
SCORES_TEXT = True


def build(
    argument: str | None, settings: LabelSettings, device: str, *, preferences: Sequence[RecordedPreference] = ()
) -> "SequenceClassifier":
    """Load the model.

    Raises:
        InvalidDataError: It cannot be reached, is no reward model, or lacks its trained head.

    """
    from activedpo_cli.oracles._sequence_classifier import SequenceClassifier  # torch only when it is needed

    name, revision = _parse(argument)
    return SequenceClassifier.load(name, revision, settings, device)


def identity(argument: str | None, settings: LabelSettings) -> dict[str, str]:
    """The digest of a local folder's files, whatever the folder is called, or the hub id and revision as given."""
    name, revision = _parse(argument)
    if Path(name).is_dir():
        return {"reward-model": quick_digest(Path(name))}
    return {"reward-model": f"hub:{name}@{revision or 'newest'}"}


def _parse(argument: str | None) -> tuple[str, str | None]:
    """Folder or hub id, and revision."""
    if argument is None:
        raise UsageError("`reward-model` does not say which model", hint="write `reward-model:FOLDER_OR_HUB_ID`")
    folder = REWARD_MODEL if is_built_in(argument) else Path(argument).expanduser()
    if folder.is_dir():
        return str(folder), None
    name, _, revision = argument.partition("@")
    return name, revision or None
