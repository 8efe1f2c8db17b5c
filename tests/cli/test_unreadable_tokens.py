"""Tokens that the model has no embeddings for: they may pad, and are refused before anything is generated."""

import json
from pathlib import Path

import pytest
from command_line import done, on, refused
from small_models import VOCABULARY, byte_tokenizer, save_small_model
from small_runs import small_run

TURNS = "{% for m in messages %}<far>{{ m['content'] }}<eos>{% endfor %}"


def model_with(folder: Path, *added: str, template: str | None = None, **named: str) -> Path:
    """A model with embeddings for 260 tokens, whose tokenizer has got more."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(added), **named})
    tokenizer.chat_template = template
    return save_small_model(folder, tokenizer=tokenizer, vocab_size=VOCABULARY, pad_token_id=None, num_hidden_layers=1)


def test_a_pad_token_beyond_the_model_changes_nothing(tmp_path: Path, prompts_file: Path) -> None:
    """Every stage, DPO and *sft* included; what is made is what a model makes whose pad token it knows."""
    examples = tmp_path / "examples.jsonl"
    examples.write_text("".join(json.dumps({"prompt": "ab", "completion": "c" * n}) + "\n" for n in (3, 9, 5, 7)))
    made = []
    for name, pad in (("known", "<pad>"), ("beyond", "<far>")):
        model = model_with(tmp_path / f"{name}-model", pad_token=pad)
        run = small_run(tmp_path / name, model, prompts_file)
        done(*on(run, "sft"), "--data", examples, "--set", "sft.max_length=64", "--quiet")
        done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
        files = (
            "generate/responses-00000.jsonl",
            "evaluate/metrics.json",
            "train/metrics.jsonl",
            "select/selection.jsonl",
        )
        made.append({file: (run / "iter-001" / file).read_bytes() for file in files})
    assert made[0] == made[1]


@pytest.mark.parametrize("where", ["template", "prompt", "held-out prompt", "response", "end"])
def test_a_token_that_the_model_can_not_read(tmp_path: Path, where: str) -> None:
    template = TURNS if where == "template" else None
    model = model_with(
        tmp_path / "model", "<far>", template=template, **({"eos_token": "<end>"} if where == "end" else {})
    )
    prompts, responses = tmp_path / "prompts.jsonl", tmp_path / "responses.jsonl"
    far = {"prompt": "train", "held-out prompt": "eval"}.get(where)
    given = [
        {"prompt": f"{split} {n}: " + "<far>" * (split == far), "split": split}
        for n in range(4)
        for split in ("train", "eval")
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in given))
    answers = [{"prompt": row["prompt"], "responses": ["a<far>" if where == "response" else "a", "b"]} for row in given]
    responses.write_text("".join(json.dumps(row) + "\n" for row in answers))
    run = tmp_path / "run"
    done(
        *on(run, "init"),
        "--model",
        model,
        "--prompts",
        prompts,
        "--split-column",
        "split",
        "--eval-prompts",
        4,
        "--quiet",
    )
    words = ("--responses", responses, "--recorded-eos") if where in ("response", "end") else ()
    message = refused(4, *on(run, "generate"), *words, "--num-prompts", 3, "--max-new-tokens", 3)
    token = "`<end>`" if where == "end" else "`<far>`"
    assert f"the model has embeddings for {VOCABULARY} tokens, and its tokenizer makes token" in message
    assert token in message
    assert not list(run.glob("iter-001/generate/responses-*"))


def test_a_held_out_answer_that_the_model_can_not_read_names_its_row(tmp_path: Path, prompts_file: Path) -> None:
    run = small_run(tmp_path / "run", model_with(tmp_path / "model", "<far>"), prompts_file)
    preferences = tmp_path / "held-out.jsonl"
    given = [{"prompt": "A new one", "chosen": chosen, "rejected": "b"} for chosen in ("a", "a<far>")]
    preferences.write_text("".join(json.dumps(row) + "\n" for row in given))
    words = ("--iterations", 1, "--quiet", "--no-report", "--set", f"evaluate.preferences={preferences}")
    message = " ".join(refused(4, *on(run, "run"), *words).split())
    assert "held-out.jsonl line 2: the model has embeddings for" in message


def test_more_embeddings_than_tokens(tmp_path: Path, prompts_file: Path) -> None:
    model = save_small_model(tmp_path / "model", vocab_size=320)
    done(*on(small_run(tmp_path / "run", model, prompts_file), "generate"), "--quiet")
