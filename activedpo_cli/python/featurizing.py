"""`featurize`: projected gradients of responses, and what else methods ask, under a model that is in memory."""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Column
from activedpo_cli.features.columns import TOLERATED_SHARE
from activedpo_cli.gradients.columns import ResponseColumns, zero_what_is_not_finite
from activedpo_cli.gradients.featurizer import Featurizer
from activedpo_cli.gradients.lora_matrices import active_lora_matrices
from activedpo_cli.gradients.memory import TooLargeError
from activedpo_cli.gradients.policy_check import check_policy
from activedpo_cli.gradients.projections import PROJECTIONS, make_projection
from activedpo_cli.models.loading import context_length
from activedpo_cli.models.vocabulary import padding_id, remember_embeddings
from activedpo_cli.python.explaining import explained
from activedpo_cli.python.features import Features
from activedpo_cli.python.rows import read_rows

AT_ONCE = 64
"""Responses that are featurized between two calls of `progress`, as many as *featurize* puts into a file."""
COMPUTED: tuple[str, ...] = tuple(name for name in get_args(Column) if name != "scores")
NAMED = 5

Tokens = Sequence[tuple[list[int], list[int]]]


@explained
def featurize(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Iterable[Mapping[str, Any]],
    *,
    method: str | Sequence[str] = "activedpo",
    columns: Collection[str] = (),
    proj_dim: int = 8192,
    projection: str = "factored",
    projection_width: int = 1,
    seed: int = 0,
    append_eos: bool = True,
    tokens_per_batch: int = 2048,
    gradient_checkpointing: bool = False,
    progress: Callable[[int, int], object] | None = None,
) -> Features:
    """What methods ask about responses, under a model with a LoRA adapter; one row for each response.

    The column `features` is the gradient of a response's summed log-probability with respect to the adapter (arXiv
    2505.19241, section 3.3), randomly projected; π_ref is the model with its adapter off. The model is as it was afterwards,
    modes, `requires_grad` and `.grad` included. `activedpo featurize` computes the same by the same code.

    Args:
        model: A causal language model of transformers with one active LoRA adapter of PEFT.
        tokenizer: The model's.
        rows: A list, a data set of `datasets` or a table of pandas, in TRL's columns: `prompt` with `chosen` and
            `rejected`, with `response_a`, `response_b` and perhaps `preference` (a, b, tie), with `completion`, or with a
            list `responses`. Rows that are pairs form these pairs, in their order; others all pairs of different responses
            to one prompt. A text is read as it is, and messages through the chat template. `prompt_token_ids` and
            `token_ids` beside a `completion` are taken as its tokens.
        method: The methods of `choose` for which to compute what they need.
        columns: Further columns; see `Features`.
        proj_dim: d, the width of `features`.
        projection: factored, count-sketch or dense.
        projection_width: How many times d a matrix's compressed gradient may be, with factored.
        seed: Of the projection. Features compare only with equal seed, projection and proj_dim.
        append_eos: End each response as TRL's trainers do, unless its `finish_reason` is `length`.
        tokens_per_batch: Tokens of prompts and responses, padding included, of one pass.
        gradient_checkpointing: Trade time for memory.
        progress: Called with the number of responses done and of all.

    Raises:
        UsageError: the model has no such adapter, a method, column or projection is unknown, or rows have no known shape.
        InvalidDataError: a row can't be read or exceeds the model's context, or more than one response in a hundred is not
            finite; fewer are warned of, and form no pair.
        ActiveDPOError: memory does not suffice for a single response.

    """
    wanted = _wanted(method, columns)
    is_reference = _require_adapter(model)
    remember_embeddings(tokenizer, model.get_input_embeddings().weight.shape[0])
    read = read_rows(rows, tokenizer, model.generation_config, append_eos=append_eos)
    _require_context(model, read.tokens)
    featurizer = Featurizer(
        model=model,
        projection=_made_projection(projection, proj_dim, projection_width, seed),
        pad_token_id=padding_id(tokenizer),
        device=model.get_input_embeddings().weight.device,
        tokens_per_batch=tokens_per_batch,
        gradient_checkpointing=gradient_checkpointing,
        alone=_checked(model) if "features" in wanted else frozenset(),
    )
    source = ResponseColumns(model, featurizer, wanted, is_reference)
    found, excluded = _all_columns(source, read.tokens, progress)
    return Features(
        columns={name: column for name, column in found.items() if name in COMPUTED},
        pairs=torch.tensor(read.pairs, dtype=torch.int64).reshape(-1, 2),
        preferred=None if read.preferred is None else torch.tensor(read.preferred, dtype=torch.int64),
        prompt_index=torch.tensor(read.prompts, dtype=torch.int64),
        texts=read.texts,
        times_sampled=torch.tensor(read.times_sampled, dtype=torch.int64),
        excluded=excluded,
        made_with={"projection": projection, "width": projection_width, "seed": seed} if "features" in wanted else None,
    )


def _wanted(method: str | Sequence[str], columns: Collection[str]) -> set[str]:
    methods = [method] if isinstance(method, str) else list(method)
    needed = {name for each in methods for name in discovery.declared_needs("acquisition", each)}
    asked = {columns} if isinstance(columns, str) else set(columns)
    for name in sorted(asked.difference(COMPUTED)):
        raise UsageError(
            f"`{name}` can't be computed" + did_you_mean(name, COMPUTED), details=[f"known: {', '.join(COMPUTED)}"]
        )
    return asked | needed.intersection(COMPUTED)


def _require_adapter(model: Any) -> bool:
    """Whether the adapter changes nothing yet; raises UsageError where there is none whose gradient can be taken."""
    hint = "get_peft_model(model, LoraConfig(…)), or PeftModel.from_pretrained(model, FOLDER)"
    if not isinstance(model, PeftModel):
        raise UsageError(f"features are gradients of a LoRA adapter, and a {type(model).__name__} has none", hint=hint)
    try:
        matrices = active_lora_matrices(model)
    except InvalidDataError as error:
        raise UsageError(error.message, details=error.details, hint=hint) from error
    return not any(matrix.has_gradient for matrix in matrices if matrix.is_a)  # the gradient of A is zero where B is


def _made_projection(projection: str, proj_dim: int, width: int, seed: int) -> Any:
    for name, number in (("proj_dim", proj_dim), ("projection_width", width)):
        if number < 1:
            raise UsageError(f"{name} is a positive number, not {number}")
    try:
        return make_projection(projection, proj_dim, derive_seed(seed, "projection"), width)
    except UsageError as error:
        raise UsageError(error.message, details=error.details, hint=f"projection={PROJECTIONS[0]!r}") from error


def _checked(model: PeftModel) -> frozenset[str]:
    """The matrices that are taken alone; raises where features would not be the gradients of what training trains."""
    try:
        passed = check_policy(model)
    except (UsageError, InvalidDataError) as error:
        raise type(error)(
            error.message,
            details=error.details,
            hint="adapt plain linear layers alone (`target_modules` of LoraConfig), or load the model in float32, not "
            'quantised, or with attn_implementation="eager"',
        ) from error
    if passed.slow:
        warnings.warn(
            f"{len(passed.slow)} of the adapter's matrices, first {passed.slow[0]}, see tokens of several responses at "
            "once, so that each response has a pass of its own: exact, and slower",
            stacklevel=4,
        )
    return passed.alone


def _require_context(model: PeftModel, tokens: Tokens) -> None:
    longest = context_length(model)
    lengths = [len(prompt) + len(response) for prompt, response in tokens]
    too_long = [place for place, length in enumerate(lengths) if longest is not None and length > longest]
    if too_long:
        raise InvalidDataError(
            f"{len(too_long)} of {len(lengths)} responses exceed the model's context of {longest} tokens with their prompts",
            details=[f"response {place}: {lengths[place]} tokens" for place in too_long[:NAMED]],
            hint="leave them out first",
        )


def _all_columns(
    source: ResponseColumns, tokens: Tokens, progress: Callable[[int, int], object] | None
) -> tuple[dict[str, torch.Tensor], tuple[int, ...]]:
    """The columns of all responses, part by part, and the rows that are not finite."""
    parts: list[dict[str, torch.Tensor]] = []
    excluded: dict[int, list[str]] = {}
    for start in range(0, len(tokens), AT_ONCE):
        rows = tokens[start : start + AT_ONCE]
        try:
            found = source.of(rows)
        except TooLargeError as error:
            place = start + error.row
            raise ActiveDPOError(
                f"memory does not suffice for response {place} alone, {sum(map(len, tokens[place]))} tokens with its prompt",
                hint="gradient_checkpointing=True, a device with more memory, or shorter responses",
            ) from error
        excluded |= {start + row: names for row, names in zero_what_is_not_finite(found).items()}
        _require_few(excluded, len(tokens))
        parts.append(found)
        if progress is not None:
            progress(start + len(rows), len(tokens))
    if excluded:
        warnings.warn(f"not finite, and part of no pair: responses {_named(excluded)}", stacklevel=4)
    together = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return together, tuple(excluded)


def _require_few(excluded: Mapping[int, Sequence[str]], total: int) -> None:
    if len(excluded) > TOLERATED_SHARE * total:
        raise InvalidDataError(
            f"{len(excluded)} of {total} responses are not finite, more than {TOLERATED_SHARE:.0%}",
            details=[f"response {row}: {', '.join(names)}" for row, names in list(excluded.items())[:NAMED]],
            hint="after training the policy has probably diverged; before it, try the model in float32",
        )


def _named(excluded: Mapping[int, Any]) -> str:
    return ", ".join(map(str, list(excluded)[:NAMED])) + (", …" if len(excluded) > NAMED else "")
