"""A whole iteration with every model family, and with the tokenizers that real models have."""

import json
from pathlib import Path

import pytest
from command_line import RULE, done, manifest, on, outputs, rows
from small_models import Family, TokenizerKind, save_small_model, save_small_reward_model
from small_runs import small_run

MESSAGES = [[{"role": "user", "content": f"Tell me about {n}."}] for n in range(14)]


@pytest.mark.parametrize(
    ("family", "tokenizer", "with_pad", "oracle"),
    [
        ("llama", "bytes-bos", True, "reward-model"),
        ("gemma", "bytes-bos", False, RULE),
        ("qwen3", "bytes", False, RULE),
    ],
)
def test_one_iteration(
    tmp_path: Path, prompts_file: Path, family: Family, tokenizer: TokenizerKind, with_pad: bool, oracle: str
) -> None:
    model = save_small_model(tmp_path / "model", family, tokenizer, with_pad=with_pad)
    if oracle == "reward-model":
        oracle = f"reward-model:{save_small_reward_model(tmp_path / 'judge')}"
    run = small_run(tmp_path / "run", model, prompts_file, oracle, select__budget=12)  # fewer may all be ties
    result = done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    assert result.stderr == "", "libraries are kept quiet too"
    status = json.loads(done(*on(run, "status"), "--json").stdout)
    assert {stage["state"] for stage in status["iterations"][0]["stages"].values()} == {"complete"}
    metrics = status["evaluations"][1]
    assert metrics["reward_mean"] is not None
    assert metrics["kl_to_reference"] != 0
    labels = rows(run / "iter-001" / "label" / "outcomes.jsonl")
    assert all(
        row["preferred_id"] == row[f"response_{'a' if row['score_a'] > row['score_b'] else 'b'}_id"]
        for row in labels
        if row["outcome"] == "chosen"
    )
    first = rows(run / "iter-001" / "generate" / "responses-00000.jsonl")[0]["prompt_token_ids"]
    assert first.count(256) == ("bos" in tokenizer)


def test_messages_through_a_chat_template(tmp_path: Path) -> None:
    from small_models import byte_tokenizer

    model = save_small_model(tmp_path / "model", "qwen3", "bytes-chat-bos")
    prompts = tmp_path / "messages.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": messages}) + "\n" for messages in MESSAGES))
    run = small_run(tmp_path / "run", model, prompts)
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    tokenizer = byte_tokenizer("bytes-chat-bos")
    contents = {row["prompt_id"]: row["prompt"] for row in rows(run / "prompts.jsonl")}
    for row in rows(run / "iter-001" / "generate" / "responses-00000.jsonl"):
        (message,) = contents[row["prompt_id"]]
        shown = f"<bos><turn>user\n{message['content']}<eos>\n<turn>assistant\n"
        assert tokenizer.decode(row["prompt_token_ids"]) == shown, "the template writes BOS, and only once"
    for row in rows(run / "iter-001" / "label" / "preferences.jsonl"):
        assert row["prompt"] == contents[row["prompt_id"]]


def test_equal_seeds_give_equal_runs_and_others_do_not(
    finished_original: Path, tmp_path: Path, small_model: Path, prompts_file: Path
) -> None:
    again = small_run(tmp_path / "again", small_model, prompts_file)
    other = small_run(tmp_path / "other", small_model, prompts_file, seed=1)
    for run in (again, other):
        for stage in ("generate", "featurize", "select"):
            done(*on(run, stage))
    for stage in ("generate", "featurize", "select"):
        assert outputs(again, 1, stage) == outputs(finished_original, 1, stage)
        assert outputs(other, 1, stage) != outputs(finished_original, 1, stage)


def test_methods_are_compared_on_one_feature_set(finished: Path) -> None:
    """Only `select` runs again; its result depends on the method and the seed, not on when it was asked."""
    features = outputs(finished, 2, "featurize")
    first = outputs(finished, 2, "select")
    done(*on(finished, "select", iteration=2), "--method", "random", "--force")
    drawn = outputs(finished, 2, "select")
    assert drawn != first
    done(*on(finished, "select", iteration=2), "--method", "activedpo", "--force")
    assert outputs(finished, 2, "select") == first
    done(*on(finished, "select", iteration=2), "--method", "random", "--force")
    assert outputs(finished, 2, "select") == drawn
    assert outputs(finished, 2, "featurize") == features
    assert manifest(finished, 2, "select")["settings"]["select.method"] == "random"


def test_at_most_so_many_pairs_of_one_prompt(finished: Path) -> None:
    done(*on(finished, "select", iteration=2), "--max-per-prompt", 1, "--force")
    prompts = [row["prompt_id"] for row in rows(finished / "iter-002" / "select" / "selection.jsonl")]
    assert len(prompts) == len(set(prompts)) == 4


def test_the_built_in_task_needs_no_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done("generate", "--num-prompts", 4, "--max-new-tokens", 5, "--eval-prompts", 3)
    assert (tmp_path / "runs" / "default" / "iter-001" / "generate" / "manifest.json").is_file()
    monkeypatch.setenv("ACTIVEDPO_RUN", "default")
    assert "up to date" in done("generate").stderr
