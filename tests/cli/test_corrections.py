"""A command that failed has pinned nothing: the right value can be given next, without --force and without deleting."""

import json
import shutil
from pathlib import Path

import pytest
from command_line import activedpo, done, manifest, on, outputs, refused, rows, snapshot
from small_runs import SMALL


def digests(run: Path) -> dict[str, str]:
    return {name: digest for name, (digest, _) in snapshot(run).items()}


def test_a_failed_featurize_does_not_fix_the_adapter(new_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.base.errors import ActiveDPOError
    from activedpo_cli.features.columns import FeatureColumns

    def out_of_memory(self: object, responses: object) -> None:
        raise ActiveDPOError("out of memory")

    done(*on(new_run, "generate"))
    config = (new_run / "config.yaml").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(FeatureColumns, "of", out_of_memory)
        refused(1, *on(new_run, "featurize"), "--lora-r", 4)
    assert (new_run / "config.yaml").read_bytes() == config
    adapter = new_run / "reference" / "initial-adapter"
    assert json.loads((adapter / "manifest.json").read_bytes())["settings"]["adapter.r"] == 4
    done(*on(new_run, "featurize"))
    assert manifest(new_run, 1, "featurize")["settings"]["adapter.r"] == 2
    assert json.loads((adapter / "adapter" / "adapter_config.json").read_bytes())["r"] == 2
    (kept,) = (new_run / ".stale").glob("reference-initial-adapter-*")
    assert json.loads((kept / "adapter" / "adapter_config.json").read_bytes())["r"] == 4


def test_an_adapter_made_again_is_the_one_that_its_settings_mean(new_run: Path, finished: Path) -> None:
    """Nothing of the first attempt is left in it."""
    done(*on(new_run, "generate"))
    refused(2, *on(new_run, "featurize"), "--lora-r", 4, "--set", "featurize.projection=foo")
    done(*on(new_run, "featurize"))
    assert outputs(new_run, 1, "featurize") == outputs(finished, 1, "featurize")


@pytest.mark.parametrize("left", ["featurize", "train"])
def test_an_adapter_in_use_stays_fixed(finished: Path, left: str) -> None:
    """One finished stage of any iteration is enough."""
    for iteration, stage in ((1, "featurize"), (1, "train"), (2, "featurize"), (2, "train")):
        if (iteration, stage) != (2, left):
            shutil.rmtree(finished / f"iter-{iteration:03d}" / stage)
    before = snapshot(finished)
    assert "adapter.r  2 → 4" in refused(3, *on(finished, "featurize", iteration=1), "--lora-r", 4)
    assert snapshot(finished) == before


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (("--stop-token-ids", "999999"), ("--stop-token-ids", "1,2")),
        (("--backend", "transfromers"), ("--backend", "transformers")),
    ],
)
def test_generate_checks_what_only_the_model_knows_before_it_writes(
    new_run: Path, wrong: tuple[str, str], right: tuple[str, str]
) -> None:
    before = digests(new_run)
    refused(2, *on(new_run, "generate"), *wrong)
    assert digests(new_run) == before
    assert not (new_run / "iter-001").exists()
    done(*on(new_run, "generate"), *right)


def test_a_backend_misspelled_in_the_file_can_be_corrected(new_run: Path) -> None:
    path = new_run / "config.yaml"
    good = path.read_text()
    path.write_text(good.replace("backend: transformers", "backend: transfromers"))
    assert "did you mean `transformers`" in refused(2, *on(new_run, "generate"))
    assert not (new_run / "iter-001").exists()
    path.write_text(good)
    done(*on(new_run, "generate"))


@pytest.mark.parametrize(
    "schedule", ["cosine_with_min_lr", "warmup_stable_decay", "reduce_lr_on_plateau", "greedy", "liner"]
)
def test_a_schedule_that_transformers_refuses(finished: Path, schedule: str) -> None:
    shutil.rmtree(finished / "iter-002" / "train")
    before = digests(finished)
    message = refused(2, *on(finished, "train", iteration=2), "--lr-scheduler-type", schedule)
    assert "lr_scheduler_type" in message or "SchedulerType" in message
    assert digests(finished) == before
    assert not (finished / "iter-002" / "train").exists()


def test_another_schedule_works(finished: Path) -> None:
    shutil.rmtree(finished / "iter-002" / "train")
    done(*on(finished, "train", iteration=2), "--lr-scheduler-type", "cosine", "--epochs", 2)
    rates = [row["learning_rate"] for row in rows(finished / "iter-002" / "train" / "metrics.jsonl")]
    assert rates[0] == SMALL["train.learning_rate"]
    assert rates[-1] < rates[0]


def test_a_pool_that_only_a_failed_command_made_is_replaced(
    tmp_path: Path, small_model: Path, prompts_file: Path
) -> None:
    """Another file, or the same one mended, may be given until an iteration has drawn from the pool."""
    prompts = [json.loads(line)["prompt"] for line in prompts_file.read_text().splitlines()]

    def write(path: Path, count: int, text: str) -> Path:
        answers = ({"prompt": prompt, "responses": [text, text + " more"]} for prompt in prompts[:count])
        path.write_text("".join(json.dumps(row) + "\n" for row in answers))
        return path

    run = tmp_path / "run"
    done(*on(run, "init"), "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    few, other = write(tmp_path / "few.jsonl", 9, "a"), write(tmp_path / "other.jsonl", 24, "b")
    refused(4, *on(run, "generate"), "--responses", few, "--num-prompts", 20)
    assert (run / "pool" / "manifest.json").exists()
    write(few, 24, "c")
    refused(4, *on(run, "generate"), "--responses", few, "--num-prompts", 21)
    assert {row["text"] for row in rows(run / "pool" / "responses.jsonl")} <= {"a", "a more", "c", "c more"}
    done(*on(run, "generate"), "--responses", few, "--num-prompts", 20)
    assert {row["text"] for row in rows(run / "pool" / "responses.jsonl")} == {"c", "c more"}
    assert activedpo(*on(run, "generate", iteration=2), "--responses", other).exit_code == 3
