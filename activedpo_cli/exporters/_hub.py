"""A repository on the Hugging Face hub: private unless the person says otherwise, all files in one commit.

The token is the hub client's own business (`HF_TOKEN`, `hf auth login`): it is not read, stored or shown here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from activedpo_cli.base.display import redacted_text
from activedpo_cli.base.errors import ActiveDPOError, RefusedError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Kind = Literal["model", "dataset"]
WORDS = {"model": "model", "dataset": "data set"}
READ_UNASKED = {
    "model": (
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "model.safetensors.index.json",
        "model-*-of-*.safetensors",
    ),
    "dataset": (),
}
"""What libraries read of a repository wherever it is there, if it comes from another export."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What is on the hub now: its address, and whether others can't see it."""

    address: str
    is_private: bool


def check_name(repository: str, kind: Kind, flag: str = "--push") -> None:
    """Raise UsageError where this is no `ORG/NAME`, which the flag takes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(
            f"`{repository[:60]}` is no name of a {WORDS[kind]} on the hub", hint=f"{flag} ORG/NAME"
        ) from error
    if "/" not in repository:
        raise UsageError(f"`{repository[:60]}` does not say whose {WORDS[kind]} it is", hint=f"{flag} ORG/{repository}")


def push(files: Mapping[str, Path], repository: str, kind: Kind, *, public: bool = False) -> Pushed:
    """Make a repository of these files, by the names that they get there, or their newest version in one that is there.

    Files that are there already as they are cost no upload; where all are, there is no new version. Files of another model
    that would be read in the place of these, or with them, leave in the same commit, and stay in the hub's history.

    Raises:
        RefusedError: There is a public repository of that name, and `public` was not asked for.
        ActiveDPOError: The hub did not take it, for the reason that it gave.

    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    hub = HfApi()
    try:
        is_private, there = _is_private(hub, repository, kind)
        others = [
            name
            for name in there
            if name not in files and any(fnmatchcase(name, pattern) for pattern in READ_UNASKED[kind])
        ]
        if is_private is not False or public:
            if is_private is None:
                hub.create_repo(repository, repo_type=kind, private=not public)
                is_private = not public
            hub.create_commit(
                repository,
                [
                    *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
                    *(CommitOperationDelete(name) for name in others),
                ],
                commit_message="Export by activedpo",
                repo_type=kind,
            )
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OS errors alike
        raise ActiveDPOError(
            f"the {WORDS[kind]} {repository} could not be pushed",
            details=[redacted_text(f"{type(error).__name__}: {error}".partition("\n")[0])],
            hint="`hf auth login` with a token that may write; the files are there, and the same command goes on",
        ) from error
    if not is_private and not public:
        raise RefusedError(
            f"the {WORDS[kind]} {repository} is public, and what goes there would be",
            hint="--public where that is meant; else make it private, or name another one with --push ORG/NAME",
        )
    folder = "datasets/" if kind == "dataset" else ""
    return Pushed(address=f"{hub.endpoint}/{folder}{repository}", is_private=bool(is_private))


def _is_private(hub: "HfApi", repository: str, kind: Kind) -> tuple[bool | None, list[str]]:
    """Whether a repository can't be seen by others, None where there is none; and which files it has."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = hub.repo_info(repository, repo_type=kind)
    except RepositoryNotFoundError:
        return None, []
    return found.private is True, [file.rfilename for file in getattr(found, "siblings", None) or ()]
