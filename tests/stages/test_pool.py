"""Runs over responses made elsewhere: scores are bought from a file, and what is bought is not bought again."""

import json
from itertools import combinations
from pathlib import Path
from statistics import fmean

import honest_policy as honest
import numpy as np
import pytest
from command_line import done, manifest, on, refused, rows, snapshot
from small_runs import SMALL

NUM_PROMPTS, EVAL_PROMPTS = 14, 5


def text(prompt: int, index: int) -> str:
    return f"answer {prompt * 7 + index * 31} " + "because " * (index % 3)


def pool_rows() -> list[dict]:
    """Four responses to each prompt; every fifth lacks rm_a, every seventh rm_b."""
    found = []
    for prompt in range(NUM_PROMPTS):
        responses = []
        for index in range(4):
            number = 4 * prompt + index
            response: dict = {"text": text(prompt, index)}
            if number % 5:
                response["rm_a"] = float((number * 37) % 23)
            if number % 7:
                response["rm_b"] = float((number * 11) % 19)
            responses.append(response)
        found.append({"prompt": f"Pool question {prompt}", "responses": responses})
    return found


@pytest.fixture(scope="module")
def pool_run(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """Three finished iterations over one pool."""
    folder = tmp_path_factory.mktemp("pool")
    path = folder / "responses.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in pool_rows()))
    run = folder / "run"
    small = {key: value for key, value in SMALL.items() if not key.startswith(("generate.", "label."))}
    assignments = [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    start = ("--model", small_model, "--prompts", path, "--eval-prompts", EVAL_PROMPTS, *assignments)
    done(*on(run, "init"), *start)
    for t in (1, 2, 3):
        flags = ("--responses", path, "--num-prompts", 7) if t == 1 else ()
        done(*on(run, "generate", iteration=t), *flags)
        done(*on(run, "featurize"))
        done(*on(run, "select"), "--score-field", "rm_a")
        done(*on(run, "label"), "--oracle", "recorded", "--score-field", "rm_a")
        done(*on(run, "train"))
        done(*on(run, "evaluate"), "--score-field", "rm_b")
    return run


def outcomes(run: Path) -> list[dict]:
    return [row for t in (1, 2, 3) for row in rows(run / f"iter-{t:03d}" / "label" / "outcomes.jsonl")]


def test_no_pair_is_bought_twice(pool_run: Path) -> None:
    bought = [row["pair_id"] for row in outcomes(pool_run)]
    assert len(bought) == 3 * SMALL["select.budget"] == len(set(bought))
    assert all("/pool/" in name for name in bought)


def test_what_was_bought_leaves_the_candidates(pool_run: Path) -> None:
    """Scores of labelled pairs are small anyway, so that the choice alone would not show it."""
    scored = [row for row in rows(pool_run / "pool" / "responses.jsonl") if "rm_a" in (row["scores"] or {})]
    pairs = [
        (a["prompt_id"], {a["response_id"], b["response_id"]})
        for a, b in combinations(scored, 2)
        if a["prompt_id"] == b["prompt_id"]
    ]
    bought: list[set[str]] = []
    for t in (1, 2, 3):
        drawn = json.loads((pool_run / f"iter-{t:03d}/generate/prompts.json").read_bytes())["prompt_ids"]
        left = [pair for prompt, pair in pairs if prompt in drawn and pair not in bought]
        assert manifest(pool_run, t, "select")["summary"]["candidates"] == len(left)
        answered = rows(pool_run / f"iter-{t:03d}" / "label" / "outcomes.jsonl")
        bought += [{row["response_a_id"], row["response_b_id"]} for row in answered]


def test_the_pool_is_stored_once(pool_run: Path) -> None:
    assert (pool_run / "pool" / "responses.jsonl").is_file()
    assert not list(pool_run.glob("iter-*/generate/responses-*"))
    stored = rows(pool_run / "pool" / "responses.jsonl")
    assert len(stored) == 4 * NUM_PROMPTS
    for row in stored:
        assert bytes(token_bytes(row["token_ids"])).decode() == row["text"], "no end-of-text token is made up"
        assert row["finish_reason"] == "recorded"


def token_bytes(tokens: list[int]) -> list[int]:
    from small_models import byte_tokenizer

    return list(byte_tokenizer().decode(tokens).encode())


def test_drawn_prompts_differ_between_iterations(pool_run: Path) -> None:
    drawn = [json.loads((pool_run / f"iter-{t:03d}/generate/prompts.json").read_bytes()) for t in (1, 2, 3)]
    held_out = {row["prompt_id"] for row in rows(pool_run / "prompts.jsonl") if row["split"] == "eval"}
    for one in drawn:
        assert len(set(one["prompt_ids"])) == 7
        assert held_out.isdisjoint(one["prompt_ids"])
    assert drawn[0]["prompt_ids"] != drawn[1]["prompt_ids"]


def test_only_pairs_with_the_score_are_selected_and_the_higher_is_preferred(pool_run: Path) -> None:
    given = {(row["prompt"], r["text"]): r.get("rm_a") for row in pool_rows() for r in row["responses"]}
    prompts = {row["prompt_id"]: row["prompt"] for row in rows(pool_run / "prompts.jsonl")}
    texts = {row["response_id"]: row["text"] for row in rows(pool_run / "pool" / "responses.jsonl")}
    for row in outcomes(pool_run):
        score = {
            row[f"response_{s}_id"]: given[prompts[row["prompt_id"]], texts[row[f"response_{s}_id"]]] for s in "ab"
        }
        assert None not in score.values()
        if len(set(score.values())) == 1:
            assert row["outcome"] == "tie"
        else:
            assert row["preferred_id"] == max(score, key=score.__getitem__)


@pytest.mark.parametrize("iteration", [1, 3])
def test_held_out_accuracy_by_hand(pool_run: Path, iteration: int) -> None:
    """β log π_θ/π_SFT against rm_b on the prompts kept out, from transformers and PEFT alone."""
    given = {(row["prompt"], r["text"]): r.get("rm_b") for row in pool_rows() for r in row["responses"]}
    prompts = {row["prompt_id"]: row for row in rows(pool_run / "prompts.jsonl")}
    policy = honest.load(pool_run, pool_run / f"iter-{iteration:03d}" / "train" / "adapter")
    reference = honest.load(pool_run, None)
    groups: dict[str, list[tuple[float, float]]] = {}
    for row in rows(pool_run / "pool" / "responses.jsonl"):
        prompt = prompts[row["prompt_id"]]
        score = given[prompt["prompt"], row["text"]]
        if prompt["split"] == "eval" and score is not None:
            ratio = float(np.subtract(honest.logps(policy, [row]), honest.logps(reference, [row]))[0])
            groups.setdefault(row["prompt_id"], []).append((score, ratio))
    assert len(groups) == EVAL_PROMPTS
    correct = {
        name: [float((a[0] > b[0]) == (a[1] > b[1])) for a, b in combinations(group, 2) if a[0] != b[0]]
        for name, group in groups.items()
    }
    metrics = json.loads((pool_run / f"iter-{iteration:03d}" / "evaluate" / "metrics.json").read_bytes())
    assert metrics["preference_accuracy"] == pytest.approx(fmean(fmean(values) for values in correct.values()))
    assert metrics["preference_pairs"] == sum(map(len, correct.values()))
    assert metrics["reward_mean"] is None, "nothing here scores new text"


def test_another_file_is_refused(pool_run: Path, tmp_path: Path) -> None:
    before = snapshot(pool_run)
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps(pool_rows()[0]) + "\n")
    assert "generate.responses" in refused(3, *on(pool_run, "generate", iteration=3), "--responses", other)
    assert "responses file" in refused(3, *on(pool_run, "generate", iteration=4), "--responses", other)
    assert snapshot(pool_run) == before


def test_preferences_in_trls_columns(tmp_path: Path, small_model: Path) -> None:
    path = tmp_path / "preferences.jsonl"
    pairs = [{"prompt": f"P {n}", "chosen": f"good {n}", "rejected": f"bad {n}"} for n in range(9)]
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    run = tmp_path / "run"
    small = [
        word
        for key in ("adapter.r", "featurize.proj_dim", "train.num_train_epochs")
        for word in ("--set", f"{key}={SMALL[key]}")
    ]
    done(*on(run, "init"), "--model", small_model, "--prompts", path, "--eval-prompts", 2, *small)
    done(*on(run, "generate"), "--responses", path, "--num-prompts", 7)
    done(*on(run, "featurize"))
    done(*on(run, "select"), "--budget", 5)
    done(*on(run, "label"), "--oracle", "recorded")
    preferences = rows(run / "iter-001" / "label" / "preferences.jsonl")
    assert len(preferences) == 5
    for row in preferences:
        assert {key: row[key] for key in ("prompt", "chosen", "rejected")} in pairs
    done(*on(run, "train"))
    assert manifest(run, 1, "train")["summary"]["preferences"] == 5
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps({**pair, "prompt": "Q" + pair["prompt"]}) + "\n" for pair in pairs[:3]))
    done(*on(run, "evaluate"), "--preferences", held_out, "--max-new-tokens", 4)
    assert manifest(run, 1, "evaluate")["summary"]["preference_pairs"] == 3


def test_too_few_prompts_with_responses_can_be_corrected(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    path = tmp_path / "some.jsonl"
    prompts = [json.loads(line)["prompt"] for line in prompts_file.read_text().splitlines()]
    path.write_text("".join(json.dumps({"prompt": p, "responses": ["x", "y z"]}) + "\n" for p in prompts[:9]))
    run = tmp_path / "run"
    done(*on(run, "init"), "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4)
    message = refused(4, *on(run, "generate"), "--responses", path, "--num-prompts", 20)
    hint = message.partition("hint: ")[2].split()
    done(*on(run, "generate"), "--responses", path, *hint)
