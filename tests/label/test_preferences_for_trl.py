"""`preferences.jsonl` trains in TRL as it did here: the same rows, and the tokens of the run."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import done, on, rows
from small_models import CHAT_TEMPLATE, byte_tokenizer, save_small_model
from small_runs import SMALL
from transformers import PreTrainedTokenizerFast

TEXTS = [f"question {number}" for number in range(8)]
PLAIN = byte_tokenizer("bytes")
BEHIND_AN_ANSWER = PLAIN("\n", add_special_tokens=False)["input_ids"]
"""What the template of the chat tokenizers writes after the end of a turn, which no model samples."""


def as_messages(text: str) -> list[dict[str, str]]:
    return [{"role": "system", "content": "Be short."}, {"role": "user", "content": text}]


def as_started(text: str) -> list[dict[str, str]]:
    return [*as_messages(text), {"role": "assistant", "content": "Sure, "}]


def thinking_tokenizer() -> PreTrainedTokenizerFast:
    """Its template leaves the place for thoughts empty where it is told so, as Qwen3's does."""
    tokenizer = byte_tokenizer("bytes-chat")
    empty = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
    turn = "<turn>{{ message['role'] }}\n"
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        turn, turn + "{% if message['role'] == 'assistant' %}" + empty + "{% endif %}"
    ).replace("<turn>assistant\n", "<turn>assistant\n" + empty)
    return tokenizer


def labelled_pool(folder: Path, kind: Any, prompts: list[Any], *more: str) -> Path:
    """A run that has bought labels of a pool of answers that ended."""
    model = save_small_model(folder / "model", "llama", kind)
    pool = [
        {
            "prompt": prompt,
            "responses": [{"text": f"yes, {number}", "s": number % 3}, {"text": f"no, not {number}", "s": 1.5}],
        }
        for number, prompt in enumerate(prompts)
    ]
    path = folder / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pool))
    small = {key: value for key, value in SMALL.items() if not key.startswith(("generate.", "label."))}
    assignments = [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    run = folder / "run"
    done(*on(run, "init"), "--model", model, "--prompts", path, "--eval-prompts", 2, *assignments, *more, "--quiet")
    done(*on(run, "generate"), "--responses", path, "--num-prompts", 6, "--recorded-eos", "--quiet")
    done(*on(run, "featurize"), "--set", "select.method=random", "--quiet")
    done(*on(run, "select"), "--method", "random", "--score-field", "s", "--quiet")
    done(*on(run, "label"), "--oracle", "recorded", "--score-field", "s", "--quiet")
    return run


def others_get_the_same(run: Path, bought: list[dict[str, Any]], folder: Path) -> None:
    """The other exporters write the same prompts and answers, in their own words."""
    speakers = {"system": "system", "human": "user", "gpt": "assistant"}
    found = {}
    for name in ("openrlhf", "axolotl", "llama-factory"):
        done("export", "--run", run, "--format", name, "--output", folder / name, "--quiet")
        found[name] = rows(folder / name / "preferences.jsonl")
    assert found["openrlhf"] == rows(folder / "out" / "preferences.jsonl")
    for row, theirs, other in zip(bought, found["axolotl"], found["llama-factory"], strict=True):
        is_chat = isinstance(row["prompt"], list)
        assert theirs["messages" if is_chat else "prompt"] == row["prompt"]
        turns = [{"role": speakers[turn["from"]], "content": turn["value"]} for turn in other["conversations"]]
        assert turns == (row["prompt"] if is_chat else [{"role": "user", "content": row["prompt"]}])
        for side in ("chosen", "rejected"):
            (answer,) = row[side] if is_chat else [{"content": row[side]}]
            assert theirs[side] == ({**answer, "content": answer["content"].strip()} if is_chat else row[side])
            assert other[side] == {"from": "gpt", "value": answer["content"]}


@pytest.mark.parametrize(
    ("kind", "prompts", "behind", "more"),
    [
        ("bytes-bos", TEXTS, [], []),
        ("bytes-chat-bos", TEXTS, BEHIND_AN_ANSWER, []),
        ("bytes-chat-bos", TEXTS, [], ["--chat-template", "never"]),
        ("bytes-chat", [as_messages(text) for text in TEXTS], BEHIND_AN_ANSWER, []),
        ("bytes-chat", [as_started(text) for text in TEXTS], BEHIND_AN_ANSWER, []),
        (thinking_tokenizer(), TEXTS, BEHIND_AN_ANSWER, ["--set", "prompts.template_kwargs=[enable_thinking=false]"]),
    ],
    ids=["plain", "rendered", "not rendered", "messages", "started", "arguments"],
)
def test_trl_trains_on_the_tokens_of_the_run(
    tmp_path: Path, kind: Any, prompts: list[Any], behind: list[int], more: list[str]
) -> None:
    """Exported, read by `datasets` and prepared by TRL, which writes out a turn to its end and then trains.

    Where a prompt begins the answer, TRL is given the whole answer: what both answers begin with cancels in the loss.
    """
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    run = labelled_pool(tmp_path, kind, prompts, *more)
    done("export", "--run", run, "--format", "trl", "--output", tmp_path / "out", "--quiet")
    exported, bought = tmp_path / "out" / "preferences.jsonl", rows(run / "iter-001" / "label" / "preferences.jsonl")
    assert [row | kept for row, kept in zip(bought, rows(exported), strict=True)] == bought
    others_get_the_same(run, bought, tmp_path)
    ours = {row["response_id"]: row for row in rows(run / "pool" / "responses.jsonl")}
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path / "model"),
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"),
            max_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=load_dataset("json", data_files=str(exported), split="train", cache_dir=str(tmp_path / "cache")),
        processing_class=AutoTokenizer.from_pretrained(tmp_path / "model"),
    )
    assert len(trainer.train_dataset) == len(bought) == SMALL["select.budget"]
    for row, preference in zip(trainer.train_dataset, bought, strict=True):
        chosen, rejected = ours[preference["chosen_id"]], ours[preference["rejected_id"]]
        prompt = chosen["prompt_token_ids"]
        assert prompt == rejected["prompt_token_ids"]
        started = prompt[len(row["prompt_ids"]) :]
        assert [*row["prompt_ids"], *started] == prompt
        assert PLAIN.decode(started) == ("Sure, " if prompts[0] == as_started(TEXTS[0]) else "")
        assert row["chosen_ids"] == [*started, *chosen["token_ids"], *behind]
        assert row["rejected_ids"] == [*started, *rejected["token_ids"], *behind]
    assert trainer.train().training_loss > 0
