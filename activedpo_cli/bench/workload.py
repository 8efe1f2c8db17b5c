"""The responses that are measured: random tokens, all of one length, in batches that every measurement shares."""

from dataclasses import dataclass

import torch

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
