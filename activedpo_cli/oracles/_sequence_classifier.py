"""Load a sequence classifier and read its one output as a reward."""

import inspect
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.records import PromptText
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.base.threads import threads_for
from activedpo_cli.gradients.memory import TooLargeError, in_halves
from activedpo_cli.models.loading import pick_device
from activedpo_cli.models.loading_errors import refusing_what_is_broken
from activedpo_cli.models.quiet import quiet_libraries
from activedpo_cli.models.resolve import resolve_model
from activedpo_cli.oracles._reward_inputs import RewardInputs
from activedpo_cli.oracles.base import Comparison, SeedOfPair, Verdict, compare_by_score, require_finite

FOLDER_HINT = "give a folder that holds the model: `--oracle reward-model:FOLDER`"


class SequenceClassifier:
    """A reward model with its tokenizer; `truncated` counts the inputs whose prompt had to be cut so far."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: LabelSettings, name: str
    ) -> None:
        self._model = model
        self._inputs = RewardInputs(tokenizer, model.config, settings, name)
        self._settings = settings
        self._name = name
        self._takes_token_types = "token_type_ids" in inspect.signature(model.forward).parameters
        self._own_pad_id = _own_pad_id(model)

    @classmethod
    def load(cls, name: str, revision: str | None, settings: LabelSettings, device: str) -> Self:
        """Load from a local folder or the hub, in float32, ready to score on `device`."""
        source = _source(name, revision) | {"trust_remote_code": False}
        with refusing_what_is_broken("reward model", name):
            config = AutoConfig.from_pretrained(**source)
            if config.num_labels != 1:
                raise InvalidDataError(
                    f"`{name}` has {config.num_labels} outputs, a reward model has one",
                    details=[f"architecture: {', '.join(config.architectures or ['unknown'])}"],
                )
            tokenizer = AutoTokenizer.from_pretrained(**source)
            with quiet_libraries():
                model, report = AutoModelForSequenceClassification.from_pretrained(
                    dtype=torch.float32, use_safetensors=True, output_loading_info=True, **source
                )
        missing = sorted(report["missing_keys"])
        if missing:
            raise InvalidDataError(
                f"`{name}` lacks trained weights that a reward model needs, so its scores would be random",
                details=[f"missing: {', '.join(missing[:5])}" + (" …" if len(missing) > 5 else "")],
            )
        return cls(
            model.to(pick_device(device, may_spread=True)).eval().requires_grad_(False), tokenizer, settings, name
        )

    @property
    def truncated(self) -> int:
        """How many inputs lost the beginning of their prompt to the length limit."""
        return self._inputs.truncated

    @torch.no_grad()
    def score(self, prompts: Sequence[PromptText], responses: Sequence[str]) -> list[float]:
        """The reward of each response, `2 * label.unit_size` at a time."""
        rows = [self._inputs.encode(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        batch_size = 2 * self._settings.unit_size
        scores: list[float] = []
        weights = sum(parameter.nbytes for parameter in self._model.parameters())
        with threads_for(weights):
            for start in range(0, len(rows), batch_size):
                scores += self._score_what_fits(rows[start : start + batch_size])
        require_finite(scores, f"the reward model `{self._name}`")
        return scores

    def compare(self, comparisons: Sequence[Comparison], seed_of_pair: SeedOfPair) -> list[Verdict]:
        """Verdicts by score."""
        return compare_by_score(self, comparisons, self._settings, seed_of_pair)

    def _score_what_fits(self, rows: list[dict[str, list[int]]]) -> list[float]:
        """The scores of a batch, in halves as often as memory runs out; they do not depend on it beyond rounding."""
        try:
            return [score for part in in_halves(lambda part: self._score_batch(list(part)), rows) for score in part]
        except TooLargeError as error:
            raise ActiveDPOError(
                f"memory does not suffice for one input of the reward model `{self._name}`, "
                f"{len(error.row['input_ids'])} tokens long",
                hint="go on on a device with more memory, for instance with `--device cpu`; or, from the beginning, with "
                "a smaller label.max_length",
            ) from error

    def _score_batch(self, rows: list[dict[str, list[int]]]) -> list[float]:
        input_ids = [row["input_ids"] for row in rows]
        pad_id = self._own_pad_id
        if pad_id is None:
            pad_id = _id_that_ends_no_row(input_ids)
            self._model.config.get_text_config().pad_token_id = pad_id
        inputs: dict[str, Tensor] = {
            "input_ids": self._pad(input_ids, pad_id),
            "attention_mask": self._pad([[1] * len(ids) for ids in input_ids], 0),
        }
        if self._takes_token_types and "token_type_ids" in rows[0]:
            inputs["token_type_ids"] = self._pad([row["token_type_ids"] for row in rows], 0)
        return self._model(**inputs).logits[:, 0].tolist()

    def _pad(self, rows: list[list[int]], value: int) -> Tensor:
        tensors = [torch.tensor(row, dtype=torch.long) for row in rows]
        padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value, padding_side="right")
        return padded.to(self._model.device)


def _own_pad_id(model: PreTrainedModel) -> int | None:
    pad_id = model.config.get_text_config().pad_token_id
    return pad_id if pad_id is not None and 0 <= pad_id < model.config.get_text_config().vocab_size else None


def _id_that_ends_no_row(rows: list[list[int]]) -> int:
    """A stand-in pad token for a model that has none.

    Causal classifiers read the score at the last token that differs from the pad token. Any id that ends no row of the
    batch makes that the last real token, which is where they read it when they get one row without padding.
    """
    endings = {row[-1] for row in rows}
    return next(index for index in range(len(rows) + 1) if index not in endings)


def _source(name: str, revision: str | None) -> dict[str, Any]:
    """The arguments by which the libraries find the model."""
    try:
        location = resolve_model(name, revision)
    except ActiveDPOError as error:
        raise InvalidDataError(error.message, details=error.details, hint=FOLDER_HINT) from error
    return {"pretrained_model_name_or_path": location.source, "revision": location.revision or "main"}
