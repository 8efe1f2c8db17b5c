"""DPO on stored tokens: the reference is π_SFT, every token counts, broken numbers stop at once."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from small_models import EOS, TURN, byte_tokenizer
from small_policies import ADAPTER, disturb
from torch.nn.functional import logsigmoid

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.settings import AdapterSettings, TrainSettings
from activedpo_cli.models.adapters import reference_mode, save_adapter
from activedpo_cli.train import dpo_trainer as dpo
from activedpo_cli.train.dpo_trainer import DPOExample, planned_steps, train_dpo

CPU = torch.device("cpu")
BETA = 0.5
ONE_STEP = TrainSettings(num_train_epochs=1, per_device_train_batch_size=4, beta=BETA)


def examples(count: int = 4, prompt_length: int = 5, seed: int = 0) -> list[DPOExample]:
    """Random token rows of unequal lengths; no response ends in EOS but the first chosen one."""
    source = random.Random(seed)

    def ids(length):
        return [source.randrange(256) for _ in range(length)]

    return [
        DPOExample(
            pair_id=f"p{row:06d}/i001/r0-r1",
            prompt_ids=ids(prompt_length + row % 3),
            chosen_ids=ids(3 + row % 4) + ([EOS] if row == 0 else []),
            rejected_ids=ids(6 - row % 4),
        )
        for row in range(count)
    ]


def train(policy, rows, settings=ONE_STEP, *, seed=7, tokenizer=None, on_log=lambda row: None, scratch: Path, **how):
    tokenizer = tokenizer or byte_tokenizer()
    return train_dpo(policy, tokenizer, rows, settings, seed=seed, device=CPU, on_log=on_log, scratch=scratch, **how)


def logp(policy, prompt, response) -> torch.Tensor:
    """Summed log-probability of one response, alone and unpadded."""
    with torch.no_grad():
        logits = policy(torch.tensor([prompt + response])).logits[0].double()
    chosen = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])
    return chosen.sum()


def log_ratio(policy, prompt, response) -> torch.Tensor:
    with reference_mode(policy):
        reference = logp(policy, prompt, response)
    return logp(policy, prompt, response) - reference


def closed_form(policy, rows, beta=BETA) -> dict[str, float]:
    """The first step's metrics from Eq. 2 of the paper, one response at a time."""
    chosen = beta * torch.stack([log_ratio(policy, row.prompt_ids, row.chosen_ids) for row in rows])
    rejected = beta * torch.stack([log_ratio(policy, row.prompt_ids, row.rejected_ids) for row in rows])
    return {
        "loss": -logsigmoid(chosen - rejected).mean().item(),
        "rewards/chosen": chosen.mean().item(),
        "rewards/rejected": rejected.mean().item(),
        "rewards/margins": (chosen - rejected).mean().item(),
        "logps/chosen": torch.stack([logp(policy, row.prompt_ids, row.chosen_ids) for row in rows]).mean().item(),
    }


def weights(policy: PeftModel) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in policy.named_parameters() if "lora_" in name}


@pytest.mark.parametrize("family", ["llama", "gemma", "qwen3", "gpt2"])
@pytest.mark.parametrize("continued", [False, True])
def test_first_step_is_the_papers_loss_against_the_sft_model(make_policy, tmp_path, family, continued):
    adapter = AdapterSettings(r=4, lora_alpha=8, target_modules="c_attn") if family == "gpt2" else ADAPTER
    policy, rows = make_policy(family, continued=continued, adapter=adapter), examples()
    expected = closed_form(policy, rows)
    [first] = train(policy, rows, scratch=tmp_path).metrics
    for name, value in expected.items():
        assert first[name] == pytest.approx(value, abs=1e-5, rel=1e-5), name
    assert (abs(first["rewards/chosen"]) > 0.01) == continued
    assert "ref" not in policy.peft_config


@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
def test_the_loss_of_four_pairs_that_no_upgrade_may_move(make_policy, tmp_path, loss_type):
    """In float64, so that nothing but another formula can be the cause; IPO counts log-ratios by the token."""
    policy, rows = make_policy("llama", continued=True).double(), examples(4)
    chosen = torch.stack([log_ratio(policy, row.prompt_ids, row.chosen_ids) for row in rows])
    rejected = torch.stack([log_ratio(policy, row.prompt_ids, row.rejected_ids) for row in rows])
    losses = -logsigmoid(BETA * (chosen - rejected))
    if loss_type == "ipo":
        lengths = [[len(row.chosen_ids) for row in rows], [len(row.rejected_ids) for row in rows]]
        losses = (chosen / torch.tensor(lengths[0]) - rejected / torch.tensor(lengths[1]) - 1 / (2 * BETA)) ** 2
    settings = ONE_STEP.model_copy(update={"loss_type": loss_type})
    [first] = train(policy, rows, settings, scratch=tmp_path).metrics
    assert first["loss"] == pytest.approx(losses.mean().item(), abs=1e-6, rel=0)
    assert abs(first["loss"] - 0.6931) > 0.01


def test_the_reference_does_not_move_with_the_policy(make_policy, tmp_path):
    """At the second update the rewards are those of the policy after the first, against the same base."""
    settings = ONE_STEP.model_copy(update={"num_train_epochs": 2, "lr_scheduler_type": "constant"})
    rows, learning = examples(), {"scratch": tmp_path}
    once = make_policy(continued=True)
    train(once, rows, settings.model_copy(update={"num_train_epochs": 1}), **learning)
    expected = closed_form(once, rows)
    second = train(make_policy(continued=True), rows, settings, **learning).metrics[1]
    assert second["rewards/chosen"] == pytest.approx(expected["rewards/chosen"], abs=1e-5)
    assert second["loss"] == pytest.approx(expected["loss"], abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_reference_is_asked_once_for_each_pair(make_policy, tmp_path, dtype):
    """Three epochs of two batches take two passes of the reference, and come to what the six of version 1 came to."""
    settings = ONE_STEP.model_copy(update={"num_train_epochs": 3, "per_device_train_batch_size": 2})
    passes = []

    def trained(scratch: Path, *, once: bool):
        policy = make_policy(continued=True).to(dtype)
        passes.clear()
        handle = policy.register_forward_hook(lambda *_: passes.append(policy.active_adapters))
        metrics = train(policy, examples(), settings, scratch=scratch, asks_reference_once=once).metrics
        handle.remove()
        return weights(policy), metrics, len(passes)

    once, metrics, count = trained(tmp_path / "once", once=True)
    assert count == 6 + 2
    each_time, expected, count = trained(tmp_path / "each time", once=False)
    assert count == 6 + 6
    for name, value in once.items():
        torch.testing.assert_close(value, each_time[name], rtol=1e-4, atol=1e-6)
    for row, other in zip(metrics, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert row["rewards/margins"] == pytest.approx(other["rewards/margins"], abs=1e-5)


def test_long_rows_are_neither_dropped_nor_cut_nor_ended(make_policy, tmp_path, monkeypatch):
    """1 030 prompt tokens exceed TRL's default max_length 1024; what the model reads is the stored rows, no more."""
    rows = examples(3, prompt_length=1030)
    seen, original = [], dpo.TrainingAudit.check_batch

    def spy(audit, numbers, inputs):
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True):
            seen.append(ids[mask.bool()].tolist())
        original(audit, numbers, inputs)

    monkeypatch.setattr(dpo.TrainingAudit, "check_batch", spy)
    result = train(make_policy(), rows, scratch=tmp_path)
    stored = [row.prompt_ids + response for row in rows for response in (row.chosen_ids, row.rejected_ids)]
    assert sorted(seen) == sorted(stored)
    assert result.rows_trained == 3
    assert result.tokens_trained == sum(len(row.chosen_ids) + len(row.rejected_ids) for row in rows)


def collator_that(change):
    class Changed(dpo._CollatorWithRows):
        def torch_call(self, batch):
            return super().torch_call([change(dict(row)) for row in batch])

    return Changed


@pytest.mark.parametrize(
    "change",
    [
        lambda row: row | {"chosen_ids": [*row["chosen_ids"], EOS]},
        lambda row: row | {"rejected_ids": row["rejected_ids"][:-1]},
        lambda row: row | {"prompt_ids": row["prompt_ids"][1:]},
        lambda row: row | {"chosen_ids": row["rejected_ids"], "rejected_ids": row["chosen_ids"]},
    ],
)
def test_other_tokens_than_stored_are_noticed(make_policy, tmp_path, monkeypatch, change):
    monkeypatch.setattr(dpo, "_CollatorWithRows", collator_that(change))
    with pytest.raises(ActiveDPOError, match=r"other tokens .* `p00000\d/i001/r0-r1`"):
        train(make_policy(), examples(), scratch=tmp_path)


def test_dropped_rows_are_named(make_policy, tmp_path, monkeypatch):
    monkeypatch.setattr(dpo._StoredTokensTrainer, "_prepare_dataset", lambda self, data, *_: data.select([0, 1, 3]))
    with pytest.raises(ActiveDPOError, match="left out 1 of 4") as caught:
        train(make_policy(), examples(), scratch=tmp_path)
    assert caught.value.details == ("pair p000002/i001/r0-r1",)


def test_part_of_an_epoch_is_allowed(make_policy, tmp_path):
    settings = ONE_STEP.model_copy(update={"num_train_epochs": 0.5, "per_device_train_batch_size": 1})
    result = train(make_policy(), examples(), settings, scratch=tmp_path)
    assert (result.rows_trained, len(result.metrics)) == (2, 2)


def test_frozen_adapter_is_refused(make_policy, tmp_path):
    with pytest.raises(ActiveDPOError, match="frozen"):
        train(make_policy(trainable=False), examples(), scratch=tmp_path)


def test_zero_first_gradient_stops(make_policy, tmp_path):
    policy = make_policy()
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.register_hook(torch.zeros_like)
    with pytest.raises(ActiveDPOError, match="first gradient is zero") as caught:
        train(policy, examples(1), scratch=tmp_path)
    assert caught.value.details == ("pair p000000/i001/r0-r1",)


def test_nan_loss_stops_at_once_and_names_the_batch(make_policy, tmp_path):
    policy, poisoned = make_policy(), TURN
    rows = examples(6)
    rows[4] = DPOExample(**vars(rows[4]) | {"chosen_ids": [poisoned, 5]})
    policy.get_input_embeddings().weight.data[poisoned] = float("nan")
    settings = ONE_STEP.model_copy(update={"per_device_train_batch_size": 1})
    logged = []
    with pytest.raises(ActiveDPOError, match="loss became nan") as caught:
        train(policy, rows, settings, on_log=logged.append, scratch=tmp_path)
    assert caught.value.details == ("pair p000004/i001/r0-r1",)
    assert len(logged) < 6
    assert all(torch.isfinite(value).all() for value in weights(policy).values())


def test_broken_gradient_stops_before_the_update(make_policy, tmp_path):
    policy = make_policy()
    before = weights(policy)
    parameter = next(value for name, value in policy.named_parameters() if "lora_B" in name)
    handle = parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(ActiveDPOError, match="gradient of the adapter is not finite"):
        train(policy, examples(), scratch=tmp_path)
    handle.remove()
    assert all(torch.equal(value, before[name]) for name, value in weights(policy).items())


@pytest.mark.parametrize("changes", [{}, {"gradient_checkpointing": True}, {"gradient_accumulation_steps": 2}])
def test_two_trainings_give_the_same_bytes(make_policy, tmp_path, changes):
    settings = TrainSettings(num_train_epochs=2, per_device_train_batch_size=2, **changes)
    saved = []
    for turn in range(2):
        torch.manual_seed(turn)
        policy = make_policy(continued=True, adapter=AdapterSettings(r=4, lora_alpha=8, lora_dropout=0.2))
        result = train(policy, examples(7), settings, scratch=tmp_path / "scratch")
        save_adapter(policy, tmp_path / str(turn), base_name="b")
        saved.append((result, (tmp_path / str(turn) / "adapter_model.safetensors").read_bytes()))
    assert saved[0] == saved[1]
    assert len(saved[0][0].metrics) == planned_steps(7, settings)


def test_seed_orders_the_rows(make_policy, tmp_path):
    settings = TrainSettings(num_train_epochs=1, per_device_train_batch_size=1)
    runs = [train(make_policy(), examples(8), settings, seed=seed, scratch=tmp_path).metrics for seed in (1, 2)]
    assert [row["logps/chosen"] for row in runs[0]] != [row["logps/chosen"] for row in runs[1]]


def test_only_the_adapter_learns_and_everything_else_is_as_before(make_policy, tmp_path, capfd):
    policy = make_policy("gpt2", adapter=AdapterSettings(r=4, target_modules="c_attn", lora_dropout=0.1))
    base = {name: value.clone() for name, value in policy.named_parameters() if "lora_" not in name}
    dropouts = {name: module.p for name, module in policy.named_modules() if isinstance(module, torch.nn.Dropout)}
    adapter, names = weights(policy), [name for name, _ in policy.named_modules()]
    needed = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    capfd.readouterr()
    tokenizer = byte_tokenizer(with_pad=False)
    train(
        policy,
        examples(),
        ONE_STEP.model_copy(update={"gradient_checkpointing": True}),
        tokenizer=tokenizer,
        scratch=tmp_path,
    )
    assert capfd.readouterr() == ("", "")
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected
    assert all(torch.equal(value, base[name]) for name, value in policy.named_parameters() if "lora_" not in name)
    assert all(not torch.equal(value, adapter[name]) for name, value in weights(policy).items() if "lora_B" in name)
    assert {name: parameter.requires_grad for name, parameter in policy.named_parameters()} == needed
    assert [name for name, _ in policy.named_modules()] == names
    assert {n: module.p for n, module in policy.named_modules() if isinstance(module, torch.nn.Dropout)} == dropouts
    assert 0.1 in dropouts.values()
    assert not policy.training
    assert "forward" not in vars(policy.get_base_model())
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt")]


def test_dropout_of_the_adapter_works_and_that_of_the_base_does_not(make_policy, tmp_path):
    """GPT-2's own dropout of 0.1 would make the first loss differ from the closed form; LoRA's has to change it."""
    rows = examples()
    quiet = AdapterSettings(r=4, lora_alpha=8, target_modules="c_attn")
    noisy = quiet.model_copy(update={"lora_dropout": 0.5})
    expected = closed_form(make_policy("gpt2", continued=True, adapter=quiet), rows)["loss"]
    losses = [
        train(make_policy("gpt2", continued=True, adapter=adapter), rows, scratch=tmp_path).metrics[0]["loss"]
        for adapter in (quiet, noisy)
    ]
    assert losses[0] == pytest.approx(expected, abs=1e-5)
    assert abs(losses[1] - expected) > 1e-3


def test_metrics_have_trls_names_and_no_clock(make_policy, tmp_path):
    heard = []
    settings = TrainSettings(num_train_epochs=2, per_device_train_batch_size=2)
    result = train(make_policy(), examples(), settings, on_log=heard.append, scratch=tmp_path)
    assert heard == result.metrics
    assert [row["step"] for row in heard] == [1, 2, 3, 4]
    assert [row["epoch"] for row in heard] == [0.5, 1, 1.5, 2]
    expected = {"loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/margins", "logps/chosen", "num_tokens"}
    assert expected < set(heard[0])
    assert not any("runtime" in name or "per_second" in name for row in heard for name in row)


def test_training_raises_the_margin(make_policy, tmp_path):
    settings = TrainSettings(num_train_epochs=8, learning_rate=0.01)
    policy, rows = make_policy(), examples()
    train(policy, rows, settings, scratch=tmp_path)
    assert closed_form(policy, rows)["rewards/margins"] > 1


def test_bfloat16_base_keeps_a_float32_adapter(make_policy, tmp_path):
    policy = make_policy(dtype="bfloat16")
    train(disturb(policy), examples(), scratch=tmp_path)
    assert {value.dtype for value in weights(policy).values()} == {torch.float32}


def test_settings_and_rows_that_cannot_work(make_policy, tmp_path):
    with pytest.raises(InvalidDataError, match="no preferences"):
        train(make_policy(), [], scratch=tmp_path)
    with pytest.raises(InvalidDataError, match="p000000"):
        train(make_policy(), [DPOExample(**vars(examples(1)[0]) | {"prompt_ids": []})], scratch=tmp_path)
    same = DPOExample(**vars(examples(1)[0]) | {"rejected_ids": examples(1)[0].chosen_ids})
    with pytest.raises(InvalidDataError, match="p000000"):
        train(make_policy(), [same], scratch=tmp_path)
    with pytest.raises(UsageError, match="wobbly"):
        train(make_policy(), examples(), TrainSettings(lr_scheduler_type="wobbly"), scratch=tmp_path)
