import itertools

import pytest
import torch

from activedpo_cli.pairs.pair_features import unit_rows
from activedpo_cli.select.methods import activedpo
from activedpo_cli.select.methods.base import Candidates, Labelled


def random_candidates(*, normalise: str = "none", prompts: int = 10, labelled: int = 4) -> Candidates:
    """Two responses a prompt with unit features in six dimensions, float32 as they are stored."""
    generator = torch.Generator().manual_seed(5)
    features = unit_rows(torch.randn(2 * prompts, 6, generator=generator))
    rows = 2 * torch.arange(labelled)
    earlier = Labelled(
        row_a=rows,
        row_b=rows + 1,
        preferred=torch.ones(labelled, dtype=torch.int64),
        features=torch.randn(2 * labelled, 6, generator=generator),
        normalise=normalise,
    )
    return Candidates(
        row_a=2 * torch.arange(prompts),
        row_b=2 * torch.arange(prompts) + 1,
        prompt_index=torch.arange(prompts),
        features=features,
        labelled=earlier,
        normalise=normalise,
    )


@pytest.mark.parametrize("ridge", [0.01, 0.1, 5.0])
def test_each_pick_gains_most_information(ridge: float) -> None:
    """An independent truth: the argmax of ‖φ‖ in V⁻¹ is the argmax of log det V after adding φφᵀ."""
    candidates = random_candidates()
    chosen = activedpo.choose(candidates, 5, activedpo.Settings(ridge=ridge), torch.Generator())
    features, history = candidates.pair_features(), candidates.history().double()
    design = ridge * torch.eye(6, dtype=torch.float64) + history.T @ history
    open_rows = list(range(10))
    for row in chosen.rows.tolist():
        gains = {r: torch.logdet(design + torch.outer(features[r], features[r])).item() for r in open_rows}
        assert row == max(gains, key=gains.__getitem__)
        open_rows.remove(row)
        design += torch.outer(features[row], features[row])


def test_the_history_changes_the_choice() -> None:
    with_history, without = random_candidates(), random_candidates(labelled=0)
    settings = activedpo.Settings()
    first = activedpo.choose(with_history, 5, settings, torch.Generator().manual_seed(0)).rows
    second = activedpo.choose(without, 5, settings, torch.Generator().manual_seed(0)).rows
    assert first.tolist() != second.tolist()


def test_a_batch_does_not_repeat_itself() -> None:
    """Two prompts with one and the same difference, a bit longer than a third's: the copy comes last."""
    features = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.9], [0.0, 0.0]])
    rows = torch.tensor([0, 2, 4])
    candidates = Candidates(row_a=rows, row_b=rows + 1, prompt_index=torch.arange(3), features=features)
    chosen = activedpo.choose(candidates, 3, activedpo.Settings(), torch.Generator().manual_seed(0))
    assert chosen.rows[1] == 2


def test_normalised_differences_all_tie_at_first_and_the_seed_decides() -> None:
    """‖φ‖² / λ = 1 / 0.1 for every candidate: over seeds each one has to come first now and then."""
    candidates = random_candidates(normalise="pair", labelled=0)
    firsts = []
    for seed in range(100):
        chosen = activedpo.choose(candidates, 1, activedpo.Settings(), torch.Generator().manual_seed(seed))
        assert chosen.scores.item() == pytest.approx(10**0.5)
        firsts.append(int(chosen.rows[0]))
    assert set(firsts) == set(range(10))


def test_responses_normalised_do_not_tie() -> None:
    candidates = random_candidates(labelled=0)
    choices = [activedpo.choose(candidates, 10, activedpo.Settings(), torch.Generator().manual_seed(s)) for s in (0, 1)]
    assert choices[0].rows.tolist() == choices[1].rows.tolist()
    scores = choices[0].scores.tolist()
    assert all(later <= earlier for earlier, later in itertools.pairwise(scores))


def test_a_ridge_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than 0"):
        activedpo.Settings(ridge=0)
