"""No label is bought for a pair that training would drop, cut or refuse."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import done, manifest, on, refused, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import BOS, CONTEXT, EOS, PAD, TURN, byte_tokenizer, save_small_model
from small_runs import small_run
from tokenizers import normalizers

from activedpo_cli.base.records import Response
from activedpo_cli.base.settings import Config
from activedpo_cli.models.encoding import decode_response
from activedpo_cli.pairs.candidates import pairable
from activedpo_cli.pairs.pairing import all_pairs
from activedpo_cli.train.training_audit import DPOExample, check_examples

NEW = 6
LENGTHS = [1, CONTEXT - NEW - 1, CONTEXT - NEW, CONTEXT - NEW + 1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 10 * CONTEXT]
FITTING = [1, CONTEXT - NEW - 1, CONTEXT - NEW]


def write(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def loop(run: Path, *stages: str) -> None:
    for stage in stages:
        done(*on(run, stage), "--quiet")


def test_lengths_around_the_models_context(tmp_path: Path, small_model: Path) -> None:
    """With a byte a token: all that is sampled, and all that is bought, TRL's own preparation keeps whole."""
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": "a" * length} for length in LENGTHS])
    run = small_run(
        tmp_path / "run", small_model, prompts, eval_prompts=0, generate__num_prompts=None, generate__max_new_tokens=NEW
    )
    loop(run, "generate", "featurize", "select", "label", "train")
    names = {row["prompt_id"]: len(row["prompt"]) for row in rows(run / "prompts.jsonl")}
    drawn = json.loads((run / "iter-001" / "generate" / "prompts.json").read_bytes())
    assert sorted(names[name] for name in drawn["prompt_ids"]) == FITTING
    assert sorted(names[name] for name in drawn["too_long"]) == sorted({*LENGTHS} - {*FITTING})
    stored = [row for path in run.glob("iter-001/generate/responses-*") for row in rows(path)]
    assert max(len(row["prompt_token_ids"]) + len(row["token_ids"]) for row in stored) == CONTEXT
    bought = rows(run / "iter-001" / "label" / "preferences.jsonl")
    assert kept_by_trl(small_model, bought, tmp_path) == [len(row["prompt"]) for row in bought]
    assert kept_by_trl(small_model, [{**bought[0], "prompt": "a" * length} for length in LENGTHS], tmp_path) == [
        length for length in LENGTHS if length < CONTEXT
    ], "it drops what it could learn nothing from, and cuts the others, without a word"
    assert manifest(run, 1, "train")["summary"]["preferences"] == len(bought) > 0


def kept_by_trl(model: Path, preferences: list[dict[str, Any]], folder: Path) -> list[int]:
    """The lengths of the prompts that are left when TRL prepares preferences by itself."""
    from datasets import Dataset
    from small_policies import load
    from trl import DPOConfig, DPOTrainer

    texts = [{name: row[name] for name in ("prompt", "chosen", "rejected")} for row in preferences]
    config = DPOConfig(output_dir=str(folder / "trl"), max_length=CONTEXT, use_cpu=True, report_to="none", bf16=False)
    trainer = DPOTrainer(
        model=load(model), ref_model=load(model), args=config, train_dataset=Dataset.from_list(texts),
        processing_class=byte_tokenizer(),
    )  # fmt: skip
    return [len(row["prompt_ids"]) for row in trainer.train_dataset]


@pytest.mark.parametrize("ends", [True, False])
def test_recorded_responses_around_the_models_context(tmp_path: Path, small_model: Path, ends: bool) -> None:
    prompt, room = "a" * 50, CONTEXT - 50 - ends
    lengths = [room - 1, room, room + 1, 10 * room]
    given_rows = [{"prompt": prompt, "responses": [{"text": "b" * length, "s": length} for length in lengths]}]
    run = pool_run(tmp_path, small_model, given_rows, generate__recorded_eos=ends)
    loop(run, "generate", "featurize", "select", "label", "train")
    kept = rows(run / "pool" / "responses.jsonl")
    assert [len(row["text"]) for row in kept] == [room - 1, room]
    assert all(len(row["prompt_token_ids"]) + len(row["token_ids"]) <= CONTEXT for row in kept)
    assert manifest(run, 1, "train")["summary"]["preferences"] == 1


def pool_run(folder: Path, model: Path, found: list[dict[str, Any]], **changed: Any) -> Path:
    path = write(folder / "responses.jsonl", found)
    return small_run(
        folder / "run", model, path, oracle="recorded", eval_prompts=0, generate__responses=str(path),
        generate__num_prompts=None, label__score_field="s", select__budget=1, prompts__duplicates="drop", **changed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose tokenizer sees no zero-width spaces, and takes a ligature for its letters, as real ones do."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("\u200b", "")]
    )
    return save_small_model(tmp_path_factory.mktemp("forgetful"), tokenizer=tokenizer)


ALIKE = {
    "nothing": ["\u200b", "yes"],
    "the same": ["\ufb01ne", "fine"],
    "empty": ["", "yes"],
    "white": [" \n\u2003", "yes"],
    "equal": ["yes", "yes"],
}


@pytest.mark.parametrize("pairs", ["all", "given"])
def test_recorded_responses_that_training_would_refuse(tmp_path: Path, forgetful: Path, pairs: str) -> None:
    """Alone they are no candidates; beside a pair that is one, only that is bought, and all of it trained."""
    found: list[dict[str, Any]] = [
        {"prompt": kind, "chosen": chosen, "rejected": rejected} for kind, (chosen, rejected) in ALIKE.items()
    ]
    found.append({"prompt": "good", "chosen": "one", "rejected": "two"})
    path = write(tmp_path / "responses.jsonl", found)
    run = small_run(
        tmp_path / "run", forgetful, path, oracle="recorded", eval_prompts=0, generate__responses=str(path),
        generate__num_prompts=None, generate__recorded_pairs=pairs, generate__recorded_eos=False, select__budget=2,
    )  # fmt: skip
    done(*on(run, "generate"), "--quiet")
    loop(run, "featurize")
    assert "only 1" in refused(4, *on(run, "select"))
    done(*on(run, "select"), "--budget", 1, "--quiet")
    loop(run, "label", "train")
    (bought,) = rows(run / "iter-001" / "label" / "preferences.jsonl")
    assert bought["prompt"] == "good"
    assert manifest(run, 1, "train")["summary"]["preferences"] == 1


def test_responses_without_tokens_are_told(tmp_path: Path, forgetful: Path) -> None:
    found = [
        {"prompt": f"{n}", "responses": [{"text": text, "s": 1} for text in (*ALIKE["the same"], "\u200b", "x")]}
        for n in range(3)
    ]
    run = pool_run(tmp_path, forgetful, found, generate__recorded_eos=False)
    result = done(*on(run, "generate"))
    assert "left out 6 responses in which the model's tokenizer sees nothing" in result.stderr
    assert json.loads((run / "pool" / "manifest.json").read_bytes())["summary"]["same_tokens"] == 6


SAMPLED = st.lists(
    st.lists(st.sampled_from([*b"ab\xe2\x80\x8b \n", BOS, EOS, PAD, TURN]), max_size=4), min_size=2, max_size=6
)


@settings(max_examples=150, deadline=None)
@given(SAMPLED, st.booleans())
def test_whatever_is_sampled_every_pair_can_be_trained_on(sampled: list[list[int]], drop: bool) -> None:
    """Tokens of special kinds alone, of half a character, of nothing: both ways round, whichever is preferred."""
    tokenizer = byte_tokenizer()
    responses = [
        Response(
            response_id=f"p/r{index}", prompt_id="p", prompt_token_ids=[1], token_ids=tokens,
            text=decode_response(tokenizer, tokens), finish_reason="length" if index % 2 else "stop",
        )
        for index, tokens in enumerate(sampled)
    ]  # fmt: skip
    config = Config.model_validate({"generate": {"truncated": "drop" if drop else "keep"}})
    usable = pairable(responses, None, drop_truncated=config.generate.truncated == "drop")
    assert all(response.text.strip() for response in usable)
    for a, b in all_pairs(range(len(usable))):
        for chosen, rejected in ((usable[a], usable[b]), (usable[b], usable[a])):
            check_examples(
                [DPOExample(pair_id="", prompt_ids=[1], chosen_ids=chosen.token_ids, rejected_ids=rejected.token_ids)]
            )


def test_an_answer_that_changed_nothing_is_no_first_pick() -> None:
    """Equal responses differ by zero: a score of 0, never NaN, and picked when nothing else is left."""
    from activedpo_cli.select.design.greedy import greedy_uncertainty

    features = torch.cat([torch.zeros(5, 4), torch.eye(4) * 1e-3])
    order, scores = greedy_uncertainty(features, torch.zeros(0, 4), 1e-6, 9, torch.arange(9))
    assert {*order.tolist()[:4]} == {5, 6, 7, 8}
    assert scores[4:].tolist() == [0.0] * 5
