"""Draw texts from the built-in model while it is being made."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 128


def sample_responses(
    model: Any,
    tokenizer: "PreTrainedTokenizerFast",
    prompts: Sequence[str],
    number: int,
    seed: int,
    new_tokens: int = 64,
) -> list[list[str]]:
    """`number` responses to each prompt at temperature 1; equal seeds and batches give equal texts."""
    import torch

    texts: list[str] = []
    repeated = [prompt for prompt in prompts for _ in range(number)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(repeated), BATCH):
            encoded = tokenizer(repeated[start : start + BATCH], padding=True, return_tensors="pt")
            output = model.generate(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=new_tokens,
            )
            texts += tokenizer.batch_decode(output[:, encoded["input_ids"].shape[1] :], skip_special_tokens=True)
    return [texts[start : start + number] for start in range(0, len(texts), number)]
