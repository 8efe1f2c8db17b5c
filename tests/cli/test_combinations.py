"""Settings that nothing would read are refused or told of before anything is computed."""

import json
from pathlib import Path

import pytest
import torch
from command_line import activedpo, done, on, refused
from transformers import get_scheduler
from transformers.trainer_utils import SchedulerType

from activedpo_cli.base.combinations import REASONS, SCHEDULES, unused
from activedpo_cli.base.config import with_changes
from activedpo_cli.base.settings import SECTIONS, Config
from activedpo_cli.train.expected_loss import preference_losses

INEFFECTIVE = [
    (
        ("--label-smoothing", 0.1),
        "train.label_smoothing  0.1: train.loss_type sigmoid does not read it; robust and cdpo do",
    ),
    (("--label-smoothing", 0.1, "--loss-type", "ipo"), "train.loss_type ipo does not read it"),
    (("--warmup-steps", 3, "--lr-scheduler-type", "constant"), "train.lr_scheduler_type constant has no warm-up"),
    (("--lr-scheduler-type", "cosin"), "did you mean `cosine`?"),
]


@pytest.mark.parametrize(("words", "said"), INEFFECTIVE)
def test_the_loop_refuses_before_it_generates(new_run: Path, words: tuple[object, ...], said: str) -> None:
    assert said in refused(2, *on(new_run, "run"), *words)
    assert not list(new_run.glob("iter-*"))


@pytest.mark.parametrize(("words", "said"), INEFFECTIVE)
def test_the_stage_refuses_and_keeps_what_stands(finished: Path, words: tuple[object, ...], said: str) -> None:
    assert said in refused(2, *on(finished, "train", iteration=2), "--force", *words)
    assert (finished / "iter-002" / "train" / "manifest.json").is_file()
    assert "label_smoothing: 0.0" in (finished / "config.yaml").read_text()


def test_an_experiment_is_refused_with_its_arm(tmp_path: Path) -> None:
    spec = tmp_path / "mine.yaml"
    spec.write_text("title: x\nseeds: [0]\narms: {a: {train.label_smoothing: 0.1}, b: {}}\n")
    said = refused(2, "experiment", spec, "--output", tmp_path / "runs")
    assert "arm `a`" in said
    assert "train.label_smoothing" in said


def test_two_losses_read_label_smoothing_and_a_constant_schedule_no_warm_up() -> None:
    """The losses are those that each update of a training is compared with; the schedule is the library's."""
    ratios = torch.tensor([0.3, -0.2]), torch.tensor([-0.1, 0.4])
    lengths = torch.tensor([3, 4]), torch.tensor([5, 2])
    for name in ("sigmoid", "ipo", "hinge", "robust", "cdpo"):
        found = [
            preference_losses(
                *ratios,
                *lengths,
                with_changes(Config(), {"train.loss_type": name, "train.label_smoothing": wrong}).train,
            )
            for wrong in (0.0, 0.2)
        ]
        assert torch.equal(*found) == (name not in ("robust", "cdpo"))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    assert get_scheduler("constant", optimizer, num_warmup_steps=5).get_last_lr() == [1.0]
    assert get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=5).get_last_lr() == [0.0]
    assert set(SCHEDULES) >= {schedule.value for schedule in SchedulerType}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label.temperature": 2.0}, "`label.temperature` is not used: `label.answer` is argmax"),
        ({"label.temperature": 2.0, "label.answer": "bradley-terry"}, None),
        ({"label.score_field": "rm"}, "`label.score_field` is not used: `label.oracle` is human"),
        ({"label.score_field": "rm", "label.oracle": "recorded"}, None),
        ({"label.max_length": 9}, "`label.max_length` is not used: no reward model is asked"),
        ({"label.max_length": 9, "evaluate.scorer": "reward-model:x"}, None),
        ({"sft.lora_alpha": 9}, "`sft.lora_alpha` is not used: `sft.lora_r` is null, so all weights are trained"),
        ({"sft.lora_alpha": 9, "sft.lora_r": 2}, None),
        ({"generate.recorded_eos": True}, "`generate.recorded_eos` is not used: `generate.responses` names no file"),
        ({"generate.top_k": 5}, None),
        ({"generate.top_k": 5, "generate.responses": "r"}, "`generate.top_k` is not used: responses come from `r`"),
        ({"featurize.projection_width": 2, "featurize.projection": "dense"}, "`featurize.projection` is dense"),
        ({"featurize.projection_width": 1, "featurize.projection": "dense"}, None),
    ],
)
def test_settings_that_nothing_reads_are_named(changes: dict[str, object], said: str | None) -> None:
    found = unused(with_changes(Config(), changes), changes)
    assert (found == []) if said is None else (len(found) == 1 and said in found[0])


def test_every_setting_of_the_table_exists() -> None:
    assert all(key.partition(".")[2] in SECTIONS[key.partition(".")[0]].model_fields for key in REASONS)


def test_what_is_typed_and_not_read_is_told_once(new_run: Path) -> None:
    result = activedpo(*on(new_run, "label"), "--label-temperature", 2)
    assert result.stderr.count("warning: `label.temperature` is not used: `label.answer` is argmax") == 1


@pytest.mark.parametrize(("words", "most"), [((), 12), (("--max-per-prompt", 2), 8), (("--num-responses", 2), 4)])
def test_the_loop_refuses_a_budget_beyond_the_pairs_before_it_samples(
    new_run: Path, words: tuple[object, ...], most: int
) -> None:
    sizes = ("--num-prompts", 4, "--num-responses", 3, "--budget", most + 1)
    said = refused(2, *on(new_run, "run"), *sizes, *words)
    assert f"no more than {most} pairs to choose from" in said
    assert f"--budget {most}" in said
    assert not list(new_run.glob("iter-*"))


def test_what_an_earlier_iteration_was_trained_with_goes_on_with_a_warning(finished: Path) -> None:
    """As an earlier version trained it; other values without effect are refused all the same."""
    for iteration in (1, 2):
        path = finished / f"iter-00{iteration}" / "train" / "manifest.json"
        record = json.loads(path.read_bytes())
        record["settings"]["train.label_smoothing"] = 0.1
        path.write_text(json.dumps(record))
    config = finished / "config.yaml"
    config.write_text(config.read_text().replace("label_smoothing: 0.0", "label_smoothing: 0.1"))
    said = done(*on(finished, "run"), "--iterations", 3, "--quiet", "--no-report").stderr
    assert "settings of training have no effect, as in earlier iterations" in said.replace("\n", " ")
    assert "label_smoothing" in refused(2, *on(finished, "train", iteration=3), "--force", "--label-smoothing", 0.2)
