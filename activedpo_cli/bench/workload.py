"""The responses that are measured: random tokens in batches that every measurement shares; what they cost a plain pass."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.gradients.batch import ResponseBatch, pad_responses
from activedpo_cli.gradients.packing import packed


@dataclass(frozen=True)
class Workload:
    """How many responses there are, how long they and their prompts are, and how many tokens a batch may have."""

    responses: int
    prompt_tokens: int
    response_tokens: int
    tokens_per_batch: int
    seed: int

    @property
    def tokens_per_response(self) -> int:
        """Tokens of a prompt and its response together."""
        return self.prompt_tokens + self.response_tokens

    @property
    def tokens(self) -> int:
        """Tokens of all prompts and responses; none is padding."""
        return self.responses * self.tokens_per_response

    def check_fits(self, context_length: int | None) -> None:
        """Raise UsageError where a prompt and its response are longer than the model can read."""
        if context_length is None or self.tokens_per_response <= context_length:
            return
        response = max(1, min(self.response_tokens, context_length // 2))
        raise UsageError(
            f"{self.prompt_tokens} + {self.response_tokens} tokens do not fit the model's context of {context_length}",
            hint=f"--prompt-tokens {context_length - response} --response-tokens {response}",
        )

    def batches(self, vocabulary: int, device: torch.device | str) -> list[ResponseBatch]:
        """Token ids drawn uniformly below `vocabulary`; equal arguments give equal batches."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "bench", "tokens"))
        ids = torch.randint(vocabulary, (self.responses, self.tokens_per_response), generator=generator).tolist()
        lengths = [self.tokens_per_response] * self.responses
        return [
            pad_responses(
                [ids[row][: self.prompt_tokens] for row in batch],
                [ids[row][self.prompt_tokens :] for row in batch],
                pad_token_id=0,
                device=device,
            )
            for batch in packed(lengths, self.tokens_per_batch)
        ]


def plain_flops(model: nn.Module, workload: Workload) -> int:
    """4 · (weights of all linear layers but the output one) · tokens + 4 · (output layer's weights) · response tokens.

    Two operations for each weight and token in the forward pass, and as many in the backward pass, which computes no
    gradient of a weight. Attention's products of tokens with tokens are left out, as is what checkpointing repeats.
    """
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    linear = {
        module.weight for module in model.modules() if module is not head and isinstance(module, (nn.Linear, Conv1D))
    }
    weights = sum(weight.numel() for weight in linear)
    at_responses = sum(weight.numel() for weight in head.parameters())
    return 4 * (weights * workload.tokens + at_responses * workload.responses * workload.response_tokens)
