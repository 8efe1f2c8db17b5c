"""The measured responses: lengths, batches, and what a model can't read."""

import pytest
import torch

from activedpo_cli.base.errors import UsageError
from activedpo_cli.bench.workload import Workload


def test_batches_hold_every_response_at_its_length() -> None:
    workload = Workload(responses=7, prompt_tokens=4, response_tokens=3, tokens_per_batch=21, seed=0)
    batches = workload.batches(11, "cpu")
    assert [len(batch.input_ids) for batch in batches] == [3, 3, 1]
    ids = torch.cat([batch.input_ids for batch in batches])
    assert ids.shape == (7, 7)
    assert int(ids.min()) == 0
    assert int(ids.max()) == 10
    for batch in batches:
        assert batch.attention_mask.all()
        assert batch.response_mask.tolist() == [[False] * 4 + [True] * 3] * len(batch.input_ids)
    assert workload.tokens == 49


def test_the_seed_decides_the_tokens() -> None:
    first, again, other = (
        torch.cat([batch.input_ids for batch in Workload(4, 3, 3, 12, seed).batches(50, "cpu")]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("prompt", "response"), [(10, 7), (1, 16), (400, 1)])
def test_what_does_not_fit_is_refused_with_lengths_that_do(prompt: int, response: int) -> None:
    with pytest.raises(UsageError, match="do not fit the model's context of 16") as caught:
        Workload(1, prompt, response, 64, 0).check_fits(16)
    _, hinted_prompt, _, hinted_response = str(caught.value.hint).split()
    Workload(1, int(hinted_prompt), int(hinted_response), 64, 0).check_fits(16)
    assert int(hinted_prompt) > 0


def test_what_fits_is_taken() -> None:
    Workload(1, 10, 6, 64, 0).check_fits(16)
    Workload(1, 10**6, 1, 64, 0).check_fits(None)
