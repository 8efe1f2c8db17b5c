"""Mixtures of experts are trained on the loss that the settings name, and on nothing that their architecture adds."""

import math

import pytest
import test_dpo
import test_sft_training
import torch
from torch.nn.functional import logsigmoid

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.train import dpo_trainer, sft_trainer


@pytest.fixture
def with_the_architectures_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the trainers add the load-balancing loss again, as TRL does by itself."""
    for module in (dpo_trainer, sft_trainer):
        ours = module.shared_arguments
        monkeypatch.setattr(
            module,
            "shared_arguments",
            lambda *args, ours=ours, **named: ours(*args, **named) | {"router_aux_loss_coef": None},
        )


def test_the_first_loss_is_the_papers(make_policy, tmp_path):
    """Eq. 2 is ln 2 where the policy is the reference; with the load-balancing loss it would be about .74."""
    [first] = test_dpo.train(make_policy("mixtral"), test_dpo.examples(), scratch=tmp_path).metrics
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert "aux_loss" not in first


def test_a_continued_policys_loss_is_the_papers(make_policy, tmp_path):
    policy, rows = make_policy("mixtral", continued=True), test_dpo.examples()
    expected = test_dpo.closed_form(policy, rows)
    [first] = test_dpo.train(policy, rows, scratch=tmp_path).metrics
    assert abs(first["loss"] - math.log(2)) > 0.01
    for name, value in expected.items():
        assert first[name] == pytest.approx(value, abs=1e-5, rel=1e-5), name


@pytest.mark.parametrize("returned", [False, True])
def test_fine_tuning_learns_the_likelihood_alone(model_folder, tmp_path, returned):
    """Also where the model's own configuration asks for the router's numbers, which loading switches off."""
    folder, rows = model_folder("mixtral", output_router_logits=returned), test_sft_training.examples(4)
    model = test_sft_training.trainable(folder)
    assert not model.config.output_router_logits
    model.config.output_router_logits = returned
    honest = sum(test_sft_training.honest_losses(model, rows)) / sum(row.learnt_tokens for row in rows)
    metrics = test_sft_training.train(model, folder, rows, tmp_path).metrics
    assert metrics[0]["loss"] == pytest.approx(honest.item(), rel=1e-5)
    assert model.config.output_router_logits == returned


def test_fine_tuning_knows_no_noise_of_the_router(model_folder, tmp_path):
    folder, rows = model_folder("mixtral", router_jitter_noise=0.3), test_sft_training.examples(4)
    model = test_sft_training.trainable(folder)
    honest = sum(test_sft_training.honest_losses(model, rows)) / sum(row.learnt_tokens for row in rows)
    metrics = test_sft_training.train(model, folder, rows, tmp_path).metrics
    assert metrics[0]["loss"] == pytest.approx(honest.item(), rel=1e-5)


def test_a_loss_that_a_library_adds_to_stops_before_the_update(make_policy, tmp_path, with_the_architectures_loss):
    policy = make_policy("mixtral")
    before = test_dpo.weights(policy)
    with pytest.raises(ActiveDPOError, match=r"step 1: the DPO loss is 0\.7\d+, and the .* make it 0\.693147"):
        test_dpo.train(policy, test_dpo.examples(), scratch=tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in test_dpo.weights(policy).items())


def test_so_does_that_of_fine_tuning(model_folder, tmp_path, with_the_architectures_loss):
    folder = model_folder("mixtral")
    with pytest.raises(ActiveDPOError, match="step 1: the loss is .* log-probabilities make it"):
        test_sft_training.train(test_sft_training.trainable(folder), folder, test_sft_training.examples(4), tmp_path)


@pytest.mark.parametrize("loss_type", ["sigmoid", "hinge", "ipo", "robust", "cdpo"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_loss_passes_its_own_audit(make_policy, tmp_path, loss_type, dtype):
    """The loss that is logged is the one that the log-ratios of single, unpadded responses give."""
    changed = {"loss_type": loss_type, "label_smoothing": 0.1 if loss_type in ("robust", "cdpo") else 0.0}
    policy, rows = make_policy(continued=True, dtype=dtype), test_dpo.examples()
    chosen = torch.stack([test_dpo.log_ratio(policy, row.prompt_ids, row.chosen_ids) for row in rows])
    rejected = torch.stack([test_dpo.log_ratio(policy, row.prompt_ids, row.rejected_ids) for row in rows])
    margins = test_dpo.BETA * (chosen - rejected)
    tokens = [
        torch.tensor([len(row.chosen_ids) for row in rows]),
        torch.tensor([len(row.rejected_ids) for row in rows]),
    ]
    expected = {
        "sigmoid": -logsigmoid(margins),
        "hinge": torch.relu(1 - margins),
        "ipo": (chosen / tokens[0] - rejected / tokens[1] - 1 / (2 * test_dpo.BETA)) ** 2,
        "robust": (-0.9 * logsigmoid(margins) + 0.1 * logsigmoid(-margins)) / 0.8,
        "cdpo": -0.9 * logsigmoid(margins) - 0.1 * logsigmoid(-margins),
    }[loss_type].mean()
    settings = test_dpo.ONE_STEP.model_copy(update=changed)
    [first] = test_dpo.train(policy, rows, settings, scratch=tmp_path).metrics
    assert first["loss"] == pytest.approx(expected.item(), rel=1e-5 if dtype == "float32" else 0.1)
