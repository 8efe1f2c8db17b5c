"""Stage 0: what is learnt from which rows, when it may be done, and what everything after it stands on."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import RULE, activedpo, all_outputs, done, on, refused, rows, snapshot
from small_models import EOS, save_small_model
from small_runs import SMALL, small_run

from activedpo_cli.train import sft_step
from activedpo_cli.train.sft_data import Encoded

ROWS = [
    *({"prompt": f"Say {n}:", "completion": f" {n} and {n}."} for n in range(20)),
    {"text": "Once upon a time there was a cat."},
    {"prompt": "Say cat:", "chosen": " cat.", "rejected": " dog."},
]
LEARNING = ("--set", "sft.learning_rate=0.01", "--set", "sft.per_device_train_batch_size=4")
PROBE = """
import sys
from activedpo_cli.cli.app import app
try:
    app(["sft", "--run", {run!r}])
finally:
    loaded = [name for name in ("torch", "transformers", "datasets") if name in sys.modules]
    assert not loaded, loaded
"""


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("examples") / "examples.jsonl", ROWS)


@pytest.fixture(scope="module")
def tuned_original(tmp_path_factory: pytest.TempPathFactory, small_model: Path, prompts_file: Path, data: Path) -> Path:
    """A run with a finished SFT and nothing else; read it, never change it."""
    run = small_run(tmp_path_factory.mktemp("tuned") / "run", small_model, prompts_file)
    done(*on(run, "sft"), "--data", data, *LEARNING, "--epochs", 3, "--eval-share", 0.2, "--quiet")
    return run


@pytest.fixture
def tuned(tuned_original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tuned_original, tmp_path / "tuned"))


def sft_manifest(run: Path) -> dict[str, Any]:
    return json.loads((run / "reference" / "sft" / "manifest.json").read_bytes())


def test_the_held_out_loss_falls_and_is_what_anybody_would_measure(tuned: Path, small_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_model)
    summary = sft_manifest(tuned)["summary"]
    held = rows(tuned / "reference" / "sft" / "held-out.jsonl")
    assert len(held) == summary["held_out"] == 4
    assert summary["examples"] == 18
    assert summary["steps"] == 15
    for which, folder in (("before", small_model), ("after", tuned / "reference" / "sft" / "model")):
        model = AutoModelForCausalLM.from_pretrained(folder)
        total = 0.0
        for row in held:
            example = ROWS[int(row["origin"].rpartition(" ")[2]) - 1]
            context = tokenizer(example["prompt"])["input_ids"] if "prompt" in example else []
            answer = example.get("completion") or example.get("chosen") or example["text"]
            ids = context + tokenizer(answer)["input_ids"] + [EOS]
            with torch.no_grad():
                logps = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            start = max(len(context), 1)
            loss = -sum(logps[place - 1, ids[place]].item() for place in range(start, len(ids)))
            assert row["tokens"] == len(ids) - start
            assert row[f"loss_{which}"] == pytest.approx(loss, rel=1e-5)
            total += loss
        per_token = total / sum(row["tokens"] for row in held)
        assert summary[f"held_out_loss_{which}"] == pytest.approx(per_token, rel=1e-5)
    assert summary["held_out_loss_after"] < 0.8 * summary["held_out_loss_before"]
    losses = [row["loss"] for row in rows(tuned / "reference" / "sft" / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


def test_what_it_leaves_behind(tuned: Path) -> None:
    folder = tuned / "reference" / "sft"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    model = {name for name in names if name.startswith("model/")}
    assert names - model == {"manifest.json", "base.json", "held-out.jsonl", "metrics.jsonl"}
    assert {Path(name).suffix for name in model} == {".json", ".safetensors"}, "no pickles"
    settings = json.loads((folder / "model" / "config.json").read_bytes())
    assert settings.get("use_cache", True), "sampling would be slow without"
    status = json.loads(done(*on(tuned, "status"), "--json").stdout)
    assert status["sft"]["state"] == "complete"
    assert status["model"].endswith("llama + SFT")
    assert "generate" in status["next"]
    assert "held-out loss" in done(*on(tuned, "status")).stdout


def test_again_is_a_look(tuned: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(tuned)
    probe = subprocess.run(
        [sys.executable, "-c", PROBE.format(run=str(tuned))], capture_output=True, text=True, check=False
    )
    assert probe.returncode == 0, probe.stderr
    assert "sft is up to date: 18 examples, 15 steps, held-out loss" in probe.stderr
    monkeypatch.chdir(data.parent)
    done(*on(tuned, "sft"), "--data", data.name, *LEARNING)
    done(*on(tuned, "sft"), "--data", shutil.copy(data, tmp_path / "copy.jsonl"))
    assert snapshot(tuned) == before
    done(*on(tuned, "sft"), "--save-steps", 7)  # decides nothing about what was made
    assert "sft.learning_rate  0.01 → 0.5" in refused(3, *on(tuned, "sft"), "--learning-rate", 0.5)


def test_a_file_that_has_changed_or_gone(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    data, run = write(tmp_path / "data.jsonl", ROWS[:6]), small_run(tmp_path / "run", small_model, prompts_file)
    done(*on(run, "sft"), "--data", data, "--quiet")
    before = snapshot(run)
    write(data, ROWS[:7])
    assert "input data" in refused(3, *on(run, "sft"))
    assert json.loads(done(*on(run, "status"), "--json").stdout)["sft"]["state"] == "stale"
    data.unlink()
    assert "up to date" in done(*on(run, "sft")).stderr
    assert snapshot(run) == before


def test_it_can_be_made_again_until_anything_stands_on_it(tuned: Path) -> None:
    first = sft_manifest(tuned)
    done(*on(tuned, "sft"), "--epochs", 1, "--force", "--quiet")
    again = sft_manifest(tuned)
    assert again["inputs"] == first["inputs"], "from the model as given, not on top of the first"
    assert again["summary"]["held_out_loss_before"] == first["summary"]["held_out_loss_before"]
    assert again["outputs"]["base.json"] != first["outputs"]["base.json"]
    assert len(list((tuned / ".stale").iterdir())) == 1
    done(*on(tuned, "generate"), "--quiet")
    made = json.loads((tuned / "iter-001" / "generate" / "manifest.json").read_bytes())
    base = json.loads((tuned / "reference" / "sft" / "base.json").read_bytes())
    assert made["inputs"]["reference"] == base["digest"]
    before = snapshot(tuned)
    message = refused(3, *on(tuned, "sft"), "--epochs", 2, "--force")
    assert "has begun with its reference as it is" in message
    assert "--run OTHER_NAME" in message
    assert snapshot(tuned) == before


def test_too_late(finished: Path, data: Path) -> None:
    before = snapshot(finished)
    assert "has begun" in refused(3, *on(finished, "sft"), "--data", data)
    assert "has begun" in refused(3, *on(finished, "run"), "--sft-data", data)
    assert "is a setting of `sft`" in refused(2, *on(finished, "run"), "--sft-learning-rate", 0.5)
    assert snapshot(finished) == before
    config = finished / "config.yaml"
    config.write_text(config.read_text().replace("  data: null", f"  data: {data}"))
    assert "sets `sft.data`" in refused(3, *on(finished, "generate", iteration=3))
    assert "up to date" in done(*on(finished, "evaluate", iteration=2)).stderr


def test_nothing_is_made_before_it_where_it_is_asked_for(
    tmp_path: Path, small_model: Path, prompts_file: Path, data: Path
) -> None:
    run = small_run(tmp_path / "run", small_model, prompts_file, sft__data=str(data))
    assert "activedpo sft --run" in refused(4, *on(run, "generate"))
    assert json.loads(done(*on(run, "status"), "--json").stdout)["next"] == f"activedpo sft --run {run}"
    message = refused(2, *on(run, "generate"), "--set", "sft.learning_rate=0.1")
    assert "is a setting of `sft`" in message
    assert not (run / "iter-001").exists()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loop_begins_with_it(tmp_path: Path, prompts_file: Path, data: Path, family: Any) -> None:
    """The run is made by the command; with LoRA, without a pad token; then everything stands on what SFT made."""
    model = save_small_model(tmp_path / "model", family, with_pad=False)
    run = tmp_path / "run"
    names = "c_attn" if family == "gpt2" else "q_proj,v_proj"
    start = ("--model", model, "--prompts", prompts_file, "--eval-prompts", 4, "--sft-data", data, "--sft-lora-r", 2)
    small = [word for key, value in SMALL.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    more = ("--lora-modules", names, "--oracle", RULE)
    words = (*on(run, "run"), *start, *small, *more, "--sft-learning-rate", 0.01, "--iterations", 1, "--no-report")
    result = done(*words, "--quiet")
    assert result.stderr == "", "libraries are kept quiet too"
    base = json.loads((run / "reference" / "sft" / "base.json").read_bytes())
    for stage in ("generate", "featurize", "train", "evaluate"):
        made = json.loads((run / "iter-001" / stage / "manifest.json").read_bytes())
        assert made["inputs"]["reference"] == base["digest"]
    adapter = json.loads((run / "iter-001" / "train" / "adapter" / "adapter_config.json").read_bytes())
    assert adapter["base_model_name_or_path"] == "reference/sft/model"
    assert sft_manifest(run)["summary"]["weights"] == "LoRA of rank 2, merged"
    before = all_outputs(run)
    assert "sft is up to date" in done(*words).stderr
    assert all_outputs(run) == before


def test_equal_seeds_give_equal_weights(tuned_original: Path, tmp_path: Path, small_model: Path, data: Path) -> None:
    """Made by the command itself, from other flags in another place; another seed holds others out."""
    prompts = tuned_original / "prompts.jsonl"
    learning = ("--data", data, *LEARNING, "--epochs", 3, "--eval-share", 0.2, "--quiet")
    for seed in (0, 1):
        run = tmp_path / f"run{seed}"
        done(
            *on(run, "sft"),
            "--model",
            small_model,
            "--prompts",
            prompts,
            "--eval-prompts",
            4,
            *learning,
            "--seed",
            seed,
        )
        weights, held = (sft_manifest(run)["outputs"][name] for name in ("model/model.safetensors", "held-out.jsonl"))
        expected = sft_manifest(tuned_original)["outputs"]
        assert (weights == expected["model/model.safetensors"]) == (seed == 0)
        assert (held == expected["held-out.jsonl"]) == (seed == 0)


BAD = [
    ('{"prompt": "a"}', "line 3 has a `prompt`, and neither `completion` nor `chosen`"),
    ('{"completion": "a"}', "line 3 has a `completion` and no `prompt`"),
    ('{"story": "a"}', "line 3 is no example"),
    ('{"prompt": "a", "completion": ""}', "line 3: `completion` is empty"),
    ('{"prompt": "", "completion": "a"}', "line 3: the prompt is empty"),
    ('{"prompt": "a", "completion": 3}', "line 3: `completion` must be text"),
    ('{"text": null}', "line 3 is no example"),
    ('{"messages": [{"role": "user", "content": "a"}]}', "line 3: `messages` must end with a message of the assistant"),
    ('{"messages": "a"}', "line 3: `messages` is a list of messages"),
    ('{"prompt": "a"', "line 3, column"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=range(len(BAD)))
def test_rows_that_are_no_examples(new_run: Path, tmp_path: Path, line: str, message: str) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text('{"text": "fine"}\n{"prompt": "a", "completion": "b"}\n' + line + "\n")
    before = snapshot(new_run)
    assert message in refused(4, *on(new_run, "sft"), "--data", data)
    assert snapshot(new_run) == before


def test_a_failed_first_command_leaves_nothing_behind(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    empty = write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "examples.jsonl", ROWS)
    start = (*on(tmp_path / "run", "sft"), "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    assert "--data FILE" in refused(2, *start)
    assert "holds no rows" in refused(4, *start, "--data", empty)
    assert "did you mean" in refused(4, *start, "--data", tmp_path / "exmples.jsonl")
    message = refused(4, *start, "--data", tmp_path / "examples.jsonl", "--max-length", 3)
    assert "every example has more than 3 tokens" in message
    assert "no layer `x_proj`" in refused(
        2, *start, "--data", tmp_path / "examples.jsonl", "--lora-r", 2, "--lora-modules", "x_proj"
    )
    assert not (tmp_path / "run").exists()


def test_a_broken_model_stops_it_and_says_where(tmp_path: Path, prompts_file: Path, data: Path) -> None:
    run = small_run(tmp_path / "run", save_small_model(tmp_path / "model"), prompts_file)
    learning = ("--learning-rate", 1e30, "--set", "sft.max_grad_norm=1e30", "--batch-size", 2)
    message = refused(1, *on(run, "sft"), "--data", data, *learning)
    assert "training stopped at step" in message
    assert "examples.jsonl line" in message
    done(*on(run, "sft"), "--data", data, "--quiet")  # other settings are free again
    assert sft_manifest(run)["settings"]["sft.learning_rate"] == 2e-5


@pytest.mark.parametrize("what", ["drop", "truncate"])
def test_rows_that_are_too_long_are_counted_and_told(new_run: Path, tmp_path: Path, what: str) -> None:
    """21 bytes and the end fit into 22 tokens; one more does not; a prompt that leaves no room is never kept."""
    found = [{"prompt": "p" * 10, "completion": "c" * n} for n in (11, 12, 300)] + [
        {"prompt": "q" * 22, "completion": "d"}
    ]
    data = write(tmp_path / "data.jsonl", found)
    words = (*on(new_run, "sft"), "--data", data, "--max-length", 22, "--too-long", what, "--eval-share", 0)
    result = done(*words)
    summary = sft_manifest(new_run)["summary"]
    cut = 2 if what == "truncate" else 0
    assert (summary["examples"], summary["cut"], summary["dropped"]) == (1 + cut, cut, 3 - cut)
    assert summary["tokens"] == 12 + cut * 12
    assert summary["held_out_loss_before"] is None
    assert f"left out {'1 example' if cut else '3 examples'} of more than 22 tokens" in result.stderr
    assert f"{3 - cut} too long left out" in result.stderr
    assert "data.jsonl line 4" in result.stderr


def test_a_prompt_that_all_answers_repeat_is_not_learnt_twice(new_run: Path, tmp_path: Path) -> None:
    """What an earlier version finished, whose record does not name the rule, stands as it is."""
    data = write(
        tmp_path / "whole.jsonl",
        [{"prompt": f"a long question {n}", "completion": f"a long question {n}yes"} for n in range(3)],
    )
    result = done(*on(new_run, "sft"), "--data", data, "--eval-share", 0)
    assert "the prompt was taken off the start of what answers it in 3 rows" in " ".join(result.stderr.split())
    assert sft_manifest(new_run)["summary"]["tokens"] == 3 * 4
    path = new_run / "reference" / "sft" / "manifest.json"
    record = json.loads(path.read_bytes())
    del record["inputs"]["examples are read by"]
    path.write_text(json.dumps(record, indent=2) + "\n")
    assert "up to date" in done(*on(new_run, "sft")).stderr
    assert json.loads(done(*on(new_run, "status"), "--json").stdout)["sft"]["state"] == "complete"
    done(*on(new_run, "sft"), "--force", "--quiet")
    assert sft_manifest(new_run)["summary"]["tokens"] == 3 * 4, "made again, it is read by the rules of today"
    assert sft_manifest(new_run)["inputs"]["examples are read by"] == "rules 5"


def begun(run: Path, small_model: Path, prompts: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An *sft* that stopped behind its first checkpoint; the folder of its work."""
    small_run(run, small_model, prompts)
    kept = sft_step._keep

    def stop(context: Any, step: int, path: Path) -> None:
        kept(context, step, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sft_step, "_keep", stop)
        words = ("--data", data, *LEARNING, "--save-steps", 1, "--eval-share", 0.2, "--quiet")
        assert activedpo(*on(run, "sft"), *words).exit_code == 130
    return run / "reference" / "sft"


@pytest.mark.parametrize("has_digest", [True, False])
@pytest.mark.parametrize("what", ["split", "tokens", "same"])
def test_what_was_begun_with_other_tokens_does_not_go_on(
    tmp_path: Path,
    small_model: Path,
    prompts_file: Path,
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    has_digest: bool,
) -> None:
    """An earlier version left no digest, and losses by which it is told whether the same rows are held out."""
    run = tmp_path / "run"
    folder = begun(run, small_model, prompts_file, data, monkeypatch)
    if not has_digest:
        (folder / "examples.json").unlink()
    split = Encoded.split

    def another(encoded: Encoded, share: float, seed: int) -> Any:
        train, held = split(encoded, share, seed)
        if what == "split":
            return [held[0], *train[1:]], [train[0], *held[1:]]
        altered = [replace(row, token_ids=row.token_ids[:-1]) for row in (train if has_digest else held)]
        return (altered, held) if has_digest else (train, altered)

    if what == "same":
        done(*on(run, "sft"), "--quiet")
        assert not (folder / "examples.json").exists()
        return
    before = snapshot(run)
    with monkeypatch.context() as patched:
        patched.setattr(Encoded, "split", another)
        said = " ".join(refused(3, *on(run, "sft"), "--quiet").split())
    assert "has learnt or held out other tokens than the examples are now" in said
    assert "activedpo sft" in said
    assert "--force" in said
    attempts = "reference/sft/.attempts.json"  # counts this one
    assert snapshot(run) | {attempts: None} == before | {attempts: None}
