"""A private data set on the hub."""

from collections.abc import Mapping, Sequence
from typing import Any

from activedpo_cli.base.errors import ActiveDPOError, RefusedError, UsageError


def check_name(repository: str) -> None:
    """Raise UsageError where this is no `ORG/NAME`."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"`{repository[:60]}` is no name of a data set on the hub", hint="--push ORG/NAME") from error
    if "/" not in repository:
        raise UsageError(
            f"`{repository[:60]}` does not say whose data set it is to be", hint=f"--push ORG/{repository}"
        )


def push(rows: Sequence[Mapping[str, Any]], repository: str) -> str:
    """Make the rows a private data set, or the newest version of one; returns its address.

    Raises:
        RefusedError: There is a public data set of that name, which would stay public.
        ActiveDPOError: The hub did not take it, for the reason that it gave.

    """
    import datasets

    try:
        is_public = _is_public(repository)
        if not is_public:
            datasets.Dataset.from_list([dict(row) for row in rows]).push_to_hub(repository, private=True)
    except Exception as error:  # the hub's client raises its own, its HTTP library's and OS errors alike
        raise ActiveDPOError(
            f"the data set {repository} could not be pushed",
            details=[f"{type(error).__name__}: {error}".partition("\n")[0]],
            hint="`hf auth login` with a token that may write; the files are there, and the same command goes on",
        ) from error
    if is_public:
        raise RefusedError(
            f"the data set {repository} is public, and what people answered would be",
            hint="make it private, or name another one with --push ORG/NAME",
        )
    return f"https://huggingface.co/datasets/{repository}"


def _is_public(repository: str) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return HfApi().dataset_info(repository).private is not True
    except RepositoryNotFoundError:
        return False
