"""Prompts from a dataset of the Hugging Face hub."""

from collections.abc import Iterator, Sequence
from typing import Any

from activedpo_cli.base.columns import CONDITIONS, SYSTEM, with_conditions
from activedpo_cli.base.conversations import parse_prompt
from activedpo_cli.base.display import excerpt
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.template_kwargs import without_own_arguments
from activedpo_cli.prompts.base import SourcePrompt

PROBE_SECONDS = 5
CONVERTED_REVISION = "refs/convert/parquet"
"""Where the hub keeps a parquet copy of datasets that are published as a loading script."""


def read_hub(
    dataset_id: str, split: str, column: str, template_kwargs: Sequence[str] | None = None
) -> Iterator[SourcePrompt]:
    """The prompts in `column` of one split, in the dataset's order; raises as `load_rows` does.

    `template_kwargs` is the setting of the run, and rows may not ask for other arguments of the chat template.
    """
    for number, row in enumerate(load_rows(dataset_id, split, column), start=1):
        origin = f"{dataset_id} {split} row {number}"
        values = without_own_arguments(row, origin, template_kwargs)
        prompt = with_conditions(parse_prompt(row[column], origin, column), values, origin, column)
        yield SourcePrompt(prompt=prompt, origin=origin)


def load_rows(dataset_id: str, split: str, column: str) -> Iterator[dict[str, Any]]:
    """The rows of one split, each with `column` and those that the answer depends on beside it.

    The dataset is downloaded, or taken from the local cache.

    Raises:
        InvalidDataError: the hub cannot be reached, or has no such dataset, split or column.
        UsageError: `dataset_id` cannot be a dataset's name.

    """
    revision = _reachable_revision(dataset_id)
    table = _load_split(dataset_id, split, revision)
    if column not in table.column_names:
        raise InvalidDataError(
            f"the dataset {dataset_id} has no column `{column}`" + did_you_mean(column, table.column_names),
            details=[f"it has: {', '.join(table.column_names)}"],
            hint="--prompt-column NAME",
        )
    return iter(
        table.select_columns([name for name in table.column_names if name == column or name in (*SYSTEM, *CONDITIONS)])
    )


def _reachable_revision(dataset_id: str) -> str | None:
    """The newest revision; None in offline mode, where only the cache is asked.

    Asked first because loading itself tries for half a minute before it says that the hub is out of reach.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return HfApi().dataset_info(dataset_id, timeout=PROBE_SECONDS).sha
    except HFValidationError as error:
        raise UsageError(f"{excerpt(dataset_id)} is no file, no named source and no dataset id") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403, 404):
            raise InvalidDataError(
                f"the hub has no dataset {dataset_id} that you may read",
                details=["a private or gated dataset needs `hf auth login`"],
                hint="--prompts FILE.jsonl",
            ) from error
        raise _unreachable(dataset_id, f"HTTP status {status}") from error
    except Exception as error:  # the HTTP library behind the hub client has changed twice; all it raises means this
        raise _unreachable(dataset_id, f"{type(error).__name__}: {error}") from error


def _unreachable(dataset_id: str, reason: str) -> InvalidDataError:
    return InvalidDataError(
        f"the hub cannot be reached to read the dataset {dataset_id}",
        details=[
            reason.partition("\n")[0],
            "with HF_HUB_OFFLINE=1 a dataset downloaded earlier is read from the cache",
        ],
        hint="--prompts FILE.jsonl",
    )


def _load_split(dataset_id: str, split: str, revision: str | None) -> Any:
    import datasets

    try:
        try:
            return datasets.load_dataset(dataset_id, split=split, revision=revision)
        except RuntimeError as error:
            if "scripts" not in str(error):
                raise
            return datasets.load_dataset(dataset_id, split=split, revision=CONVERTED_REVISION)
    except Exception as error:  # whatever a foreign dataset's files or its reader can raise
        raise InvalidDataError(
            f"the split `{split}` of the dataset {dataset_id} cannot be read",
            details=[f"{type(error).__name__}: {error}".partition("\n")[0]],
            hint="--prompts FILE.jsonl",
        ) from error
