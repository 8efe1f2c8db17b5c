"""SFT on ready tokens: the loss is that of the tokens to learn, checkpoints continue exactly, merging changes nothing."""

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_policies import CPU, load
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.settings import AdapterSettings, SftSettings
from activedpo_cli.models.adapters import with_fresh_adapter
from activedpo_cli.models.loading import load_tokenizer
from activedpo_cli.models.merging import write_full_weights
from activedpo_cli.train.sft_examples import SFTAudit, held_out_losses
from activedpo_cli.train.sft_trainer import SFTExample, SFTResult, step_of, train_sft

SETTINGS = SftSettings(learning_rate=1e-2, per_device_train_batch_size=2, gradient_accumulation_steps=2)
PROBE = torch.tensor([[5, 17, 99, 200, 31]])


def examples(count: int = 11) -> list[SFTExample]:
    """Rows of unequal lengths: prompts with answers, and texts, of which one token alone is read."""
    source = random.Random(0)
    return [
        SFTExample(
            origin=f"line {row}",
            token_ids=[source.randrange(256) for _ in range(7 + row % 5)],
            context_tokens=1 if row % 3 == 0 else 4,
        )
        for row in range(count)
    ]


def trainable(folder: Path, lora_r: int | None = None, dropout: float = 0.0) -> Any:
    base = load(folder, dtype="float32")
    if lora_r is None:
        return base.requires_grad_(True)
    adapter = AdapterSettings(r=lora_r, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear")
    return with_fresh_adapter(base, adapter, seed=3)


def train(model: Any, folder: Path, rows: list[SFTExample], place: Path, **changes: Any) -> SFTResult:
    """One training; its checkpoints are kept in `place` by their steps."""
    options = {"checkpoint": None, "settings": SETTINGS, "seed": 7} | changes
    return train_sft(
        model,
        load_tokenizer(str(folder)),
        rows,
        options.pop("settings"),
        device=CPU,
        scratch=place / "scratch",
        on_log=lambda row: None,
        on_checkpoint=lambda step, path: shutil.move(path, place / f"step-{step}"),
        **options,
    )


def honest_losses(model: Any, rows: list[SFTExample]) -> list[torch.Tensor]:
    """Summed cross-entropy of the tokens to learn, one row at a time, unpadded."""
    losses = []
    for row in rows:
        with torch.no_grad():
            logits = model(torch.tensor([list(row.token_ids)])).logits[0].double()
        start = row.context_tokens
        targets = torch.tensor(list(row.token_ids[start:]))
        losses.append(cross_entropy(logits[start - 1 : -1], targets, reduction="sum"))
    return losses


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_the_loss_is_the_cross_entropy_of_the_tokens_to_learn(model_folder, tmp_path, family):
    """Over all rows of one update, in two unequal batches, without a pad token."""
    folder, rows = model_folder(family, with_pad=False), examples(4)
    model = trainable(folder)
    expected = sum(honest_losses(model.eval(), rows)) / sum(len(row.token_ids) - row.context_tokens for row in rows)
    [first] = train(model, folder, rows, tmp_path).metrics
    assert first["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert first["num_tokens"] == sum(len(row.token_ids) for row in rows)
    losses = held_out_losses(trainable(folder), rows, 0, 16, lambda count: None)
    assert losses == pytest.approx([loss.item() for loss in honest_losses(trainable(folder).eval(), rows)], rel=1e-5)


def test_tokens_that_are_read_only_are_not_learnt(model_folder, tmp_path):
    """Other labels in their places would give another loss; the audit compares every batch with the rows."""
    folder, rows = model_folder(), examples(4)
    audit = SFTAudit(rows)
    ids = torch.tensor([list(rows[1].token_ids) + [0]])
    attended, labels = torch.ones_like(ids), torch.tensor([[*rows[1].labels, -100]])
    attended[0, -1] = 0
    batch = {"input_ids": ids, "attention_mask": attended, "labels": labels}
    audit.check_batch(torch.tensor([1]), batch)
    for spoilt in (ids, torch.where(labels == -100, 5, labels)):
        with pytest.raises(ActiveDPOError, match="other tokens than line 1"):
            audit.check_batch(torch.tensor([1]), batch | {"labels": spoilt})
    result = train(trainable(folder), folder, rows, tmp_path)
    assert result.rows_trained == 4
    assert result.tokens_trained == sum(len(row.token_ids) - row.context_tokens for row in rows)


@pytest.mark.parametrize(("family", "lora_r"), [("llama", None), ("gpt2", None), ("llama", 2), ("gpt2", 2)])
def test_every_checkpoint_continues_bit_for_bit(model_folder, tmp_path, family, lora_r):
    settings = SETTINGS.model_copy(update={"save_steps": 1, "num_train_epochs": 2, "warmup_steps": 1})
    folder, rows = model_folder(family, with_pad=False), examples()
    whole = trainable(folder, lora_r, dropout=0.3)
    expected = train(whole, folder, rows, tmp_path, settings=settings)
    assert len(expected.metrics) == 6
    found = sorted(tmp_path.glob("step-*"))
    assert [step_of(path) for path in found] == [1, 2, 3, 4, 5], "none behind the last update"
    for path in (found[0], found[3]):  # in the first pass, and in the second
        again = trainable(folder, lora_r, dropout=0.3)
        resumed = train(again, folder, rows, tmp_path / path.name, settings=settings, checkpoint=path, seed=7)
        assert resumed == expected
        for name, value in whole.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), (path, name)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma"])
def test_merged_weights_compute_what_the_adapter_did(model_folder, tmp_path, family):
    folder = model_folder(family)
    policy = trainable(folder, lora_r=2)
    with torch.no_grad():
        before = policy(PROBE).logits
    train(policy, folder, examples(), tmp_path, settings=SETTINGS.model_copy(update={"learning_rate": 0.1}))
    with torch.no_grad():
        with_adapter = policy(PROBE).logits
    assert (with_adapter - before).abs().max() > 0.1, "something was learnt"
    write_full_weights(policy, load_tokenizer(str(folder)), tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(PROBE).logits, with_adapter, rtol=1e-4, atol=1e-4)


def test_the_model_is_as_it_was_but_for_its_weights(model_folder, tmp_path):
    folder = model_folder("gpt2", with_pad=False, resid_pdrop=0.5, attn_pdrop=0.5, embd_pdrop=0.5)
    first, second = trainable(folder), trainable(folder)
    config = first.config.to_dict()
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    train(first, folder, examples(), tmp_path / "a")
    assert states[:2] == (random.getstate(), np.random.get_state()[1].tolist())
    assert torch.equal(states[2], torch.get_rng_state())
    assert first.config.to_dict() == config
    assert "forward" not in vars(first)
    assert not first.training
    assert first.transformer.drop.p == 0.5
    # Were dropout active, the loss of the first update would be another than the honest one.
    rows = examples(4)
    expected = sum(honest_losses(second.eval(), rows)) / sum(row.learnt_tokens for row in rows)
    assert train(second, folder, rows, tmp_path / "b").metrics[0]["loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_broken_loss_stops_before_the_update_and_names_the_rows(model_folder, tmp_path):
    folder, rows = model_folder(), examples(2)
    model = trainable(folder)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("inf"))
    with pytest.raises(ActiveDPOError, match="training stopped at step 1: the loss became nan") as caught:
        train(model, folder, rows, tmp_path)
    assert sorted(caught.value.details) == ["line 0", "line 1"]


def test_what_is_refused(model_folder, tmp_path):
    folder = model_folder()
    with pytest.raises(InvalidDataError, match="no examples"):
        train(trainable(folder), folder, [], tmp_path)
    for changes in ({"lr_scheduler_type": "nonsense"}, {"lr_scheduler_type": "inverse"}):
        with pytest.raises(UsageError, match="sft.lr_scheduler_type"):
            train(trainable(folder), folder, examples(), tmp_path, settings=SETTINGS.model_copy(update=changes))
    adapter = AdapterSettings(r=2, target_modules="x_proj")
    with pytest.raises(UsageError, match="sft.lora_modules: this model has no layer `x_proj`"):
        with_fresh_adapter(load(folder), adapter, seed=0, modules_setting="sft.lora_modules")


def test_nothing_is_told_to_anybody(model_folder, tmp_path, monkeypatch, capfd):
    from trl.trainer import base_trainer

    def told(*args, **kwargs):
        raise AssertionError("telemetry")

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base_trainer, "send_telemetry", told)
    folder = model_folder()
    train(trainable(folder), folder, examples(), tmp_path, settings=SETTINGS.model_copy(update={"save_steps": 1}))
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.rglob("README.md")) + list(tmp_path.rglob("training_args.bin"))


class Canary:
    """Sings when it is unpickled."""

    def __init__(self, song: Path) -> None:
        self.song = song

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.song,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_runs_nothing(model_folder, tmp_path, name):
    """A trainer's own format is a pickle; of one that came with a run of somebody else tensors are read, and no more."""
    folder, rows = model_folder("llama"), examples(6)
    settings = SETTINGS.model_copy(update={"save_steps": 1})
    train(trainable(folder), folder, rows, tmp_path, settings=settings)
    checkpoint = tmp_path / "step-1"
    assert (checkpoint / name).is_file()
    torch.save({"state": Canary(tmp_path / "song")}, checkpoint / name)
    with pytest.raises(InvalidDataError, match="step-1` holds something else"):
        train(trainable(folder), folder, rows, tmp_path / "again", settings=settings, checkpoint=checkpoint)
    assert not (tmp_path / "song").exists()
