"""Runs over responses made elsewhere: scores are bought from a file, and what is bought is not bought again."""

import json
import shutil
from itertools import combinations
from pathlib import Path
from statistics import fmean

import honest_policy as honest
import numpy as np
import pytest
from command_line import activedpo, done, manifest, on, refused, rows, snapshot
from small_models import EOS
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


def copy_of(pool_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The run with its file beside it, both free to be changed."""
    shutil.copytree(pool_run.parent, tmp_path / "pool")
    return tmp_path / "pool" / "run", tmp_path / "pool" / "responses.jsonl"


def test_the_same_file_by_another_path_is_the_same(
    pool_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = copy_of(pool_run, tmp_path)
    before = snapshot(run)
    monkeypatch.chdir(file.parent)
    for path in (file, "responses.jsonl", "./responses.jsonl", pool_run.parent / "responses.jsonl"):
        assert "up to date" in done(*on(run, "generate", iteration=3), "--responses", path).stderr
        assert snapshot(run) == before
    done(*on(run, "generate", iteration=4), "--responses", "responses.jsonl")
    known = manifest(run, 1, "generate")["settings"]["generate.responses"]
    assert manifest(run, 4, "generate")["settings"]["generate.responses"] == known


def test_a_file_edited_in_place_is_noticed_when_it_is_given_again(pool_run: Path, tmp_path: Path) -> None:
    run, _ = copy_of(pool_run, tmp_path)
    file = pool_run.parent / "responses.jsonl"
    good = file.read_text()
    before = snapshot(run)
    try:
        file.write_text(good.replace("answer 7 ", "Answer 7 "))
        for t in (3, 4):
            assert "input responses file  " in refused(3, *on(run, "generate", iteration=t), "--responses", file)
        assert "input responses file  " in refused(3, *on(run, "run"), "--responses", file)
        done(*on(run, "generate", iteration=3))
        assert snapshot(run) == before
        file.unlink()
        done(*on(run, "generate", iteration=3), "--responses", file)
        assert snapshot(run) == before
        done(*on(run, "generate", iteration=4), "--responses", file)
        assert "there is no file" in refused(
            4, *on(run, "generate", iteration=5), "--responses", tmp_path / "none.jsonl"
        )
    finally:
        file.write_text(good)


def test_another_way_to_read_the_file_is_refused(pool_run: Path) -> None:
    before = snapshot(pool_run)
    message = refused(3, *on(pool_run, "generate", iteration=4), "--recorded-eos")
    assert "generate.recorded_eos  False → True" in message
    assert snapshot(pool_run) == before


def test_only_prompts_that_form_a_pair_are_drawn(tmp_path: Path, small_model: Path) -> None:
    """Neither one response, nor one and an empty one, nor, where these are dropped, one and a cut-off one is a pair."""
    pairs = [
        ["one alone"],
        ["one", " "],
        [{"text": "whole", "finish_reason": "stop"}, {"text": "cut o", "finish_reason": "length"}],
        ["one", "two"],
        ["one", " ", "three"],
    ]
    path = tmp_path / "responses.jsonl"
    path.write_text(
        "".join(
            json.dumps({"prompt": f"{kind} of {number}", "responses": responses}) + "\n"
            for number in range(6)
            for kind, responses in enumerate(pairs)
        )
    )
    run = tmp_path / "run"
    done(*on(run, "init"), "--model", small_model, "--prompts", path, "--eval-prompts", 5)
    prompts = {row["prompt_id"]: row["prompt"] for row in rows(run / "prompts.jsonl") if row["split"] == "train"}

    def possible(*kinds: int) -> list[str]:
        return sorted(name for name, prompt in prompts.items() if int(prompt.split()[0]) in kinds)

    for truncated, kinds in (("keep", (2, 3, 4)), ("drop", (3, 4))):
        count = len(possible(*kinds))
        words = (*on(run, "generate"), "--responses", path, "--truncated", truncated, "--force")
        assert f"--num-prompts {count}" in refused(4, *words, "--num-prompts", count + 1)
        done(*words, "--num-prompts", count)
        drawn = json.loads((run / "iter-001" / "generate" / "prompts.json").read_bytes())["prompt_ids"]
        assert sorted(drawn) == possible(*kinds)
        held = [row for row in rows(run / "pool" / "responses.jsonl") if row["prompt_id"] in drawn]
        summary = {"prompts": count, "responses": len(held), "rendered": False}
        assert manifest(run, 1, "generate")["summary"] == summary


@pytest.mark.parametrize("recorded_eos", [False, True])
def test_an_end_of_text_token_is_never_put_after_a_response_that_was_cut_off(
    tmp_path: Path, small_model: Path, recorded_eos: bool
) -> None:
    reasons = {"cut off": "length", "ended": "stop", "unknown": None}
    responses = [{"text": text} | ({"finish_reason": why} if why else {}) for text, why in reasons.items()]
    path = tmp_path / "responses.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"P {n}", "responses": responses}) + "\n" for n in range(4)))
    run = tmp_path / "run"
    done(*on(run, "init"), "--model", small_model, "--prompts", path, "--eval-prompts", 2)
    flag = "--recorded-eos" if recorded_eos else "--no-recorded-eos"
    done(*on(run, "generate"), "--responses", path, "--num-prompts", 2, flag)
    stored = rows(run / "pool" / "responses.jsonl")
    ends = {row["text"]: row["token_ids"][-1] == EOS for row in stored}
    assert ends == {"cut off": False, "ended": True, "unknown": recorded_eos}


def test_the_loop_tells_select_what_the_recorded_oracle_can_answer(tmp_path: Path, small_model: Path) -> None:
    """Half of the responses have the score; without knowing it, select would choose pairs that nobody can answer."""
    path = tmp_path / "responses.jsonl"
    with path.open("w") as stream:
        for number in range(10):
            responses = [{"text": text(number, i)} | ({"rm": float(number * i % 7)} if i < 2 else {}) for i in range(4)]
            stream.write(json.dumps({"prompt": f"Pool question {number}", "responses": responses}) + "\n")
    small = {key: value for key, value in SMALL.items() if not key.startswith(("generate.", "label."))}
    assignments = [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    run = tmp_path / "run"
    done(*on(run, "init"), "--model", small_model, "--prompts", path, "--eval-prompts", 3, *assignments)
    pool = ("--responses", path, "--num-prompts", 7, "--oracle", "recorded", "--score-field", "rm")
    done(*on(run, "run"), "--iterations", 1, *pool, "--set", "evaluate.max_new_tokens=4", "--quiet", "--no-report")
    selected = manifest(run, 1, "select")
    assert selected["settings"]["label.score_field"] == "rm"
    assert selected["summary"]["candidates"] == 7


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


def scored(value: object) -> list[dict]:
    """Responses with a score `rm`, one of which is `value`, and a note `age` that is no number in one row."""
    found = pool_rows()
    for row in found:
        for index, response in enumerate(row["responses"]):
            response |= {"rm": index, "age": index}
    found[3]["responses"][1] |= {"rm": value, "age": float("nan")}
    return found


def started(tmp_path: Path, small_model: Path, found: list[dict]) -> tuple[Path, Path]:
    path, run = tmp_path / "pool.jsonl", tmp_path / "run"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    small = {key: value for key, value in SMALL.items() if not key.startswith(("generate.", "label."))}
    assignments = [word for key, value in small.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    done(*on(run, "init"), "--model", small_model, "--prompts", path, "--eval-prompts", EVAL_PROMPTS, *assignments)
    return path, run


@pytest.mark.parametrize("value", ["0,5", "good", float("nan"), [1]])
def test_a_named_score_that_is_no_number_is_refused_with_its_place(
    tmp_path: Path, small_model: Path, value: object
) -> None:
    path, run = started(tmp_path, small_model, scored(value))
    message = refused(4, *on(run, "generate"), "--responses", path, "--num-prompts", 7, "--score-field", "rm")
    assert "1 of 56 responses has a `rm` that is no finite number" in message
    assert "pool.jsonl line 4, response 2: " in message


def test_a_column_that_nobody_named_may_hold_anything_and_is_told(tmp_path: Path, small_model: Path) -> None:
    path, run = started(tmp_path, small_model, scored("0.25"))
    said = done(*on(run, "generate"), "--responses", path, "--num-prompts", 7, "--score-field", "rm").stderr
    assert "`age` is a number in 55 responses and none that can be read in 1" in said
    assert "`rm`" not in said
    assert {0.25} == {
        row["scores"]["rm"] for row in rows(run / "pool" / "responses.jsonl") if row["text"] == text(3, 1)
    }
    done(*on(run, "featurize"))
    assert "a `age` that is no finite number" in refused(4, *on(run, "select"), "--score-field", "age")


@pytest.mark.parametrize(("typed", "meant"), [("RM_A", "rm_a"), ("rm-a", "rm_a"), ("scor", None)])
def test_a_score_that_is_not_there_is_answered_with_those_that_are(
    pool_run: Path, typed: str, meant: str | None
) -> None:
    """In *generate*, *select* and *evaluate*; what is suggested is the score that was probably meant."""
    path = pool_run.parent / "responses.jsonl"
    commands = [
        (*on(pool_run, "generate", iteration=4), "--responses", path, "--num-prompts", 7, "--oracle", "recorded"),
        (*on(pool_run, "evaluate", iteration=3), "--force"),
    ]
    for words in commands:
        message = refused(4, *words, "--score-field", typed)
        assert ("did you mean `rm_a`?" in message) == (meant is not None)
        assert "scores there are: rm_a, rm_b" in message
        assert "--score-field rm_a" in message


def test_null_draws_all_prompts_and_other_words_are_refused(tmp_path: Path, small_model: Path) -> None:
    path, run = started(tmp_path, small_model, pool_rows())
    for typed in ("many", "1.5"):
        result = activedpo(*on(run, "generate"), "--responses", path, "--num-prompts", typed)
        assert result.exit_code == 2
        assert f"`{typed}` is neither a whole number nor null" in " ".join(result.stderr.replace("│", "").split())
    done(*on(run, "generate"), "--responses", path, "--num-prompts", "null")
    assert manifest(run, 1, "generate")["settings"]["generate.num_prompts"] is None
    assert manifest(run, 1, "generate")["summary"]["prompts"] == NUM_PROMPTS - EVAL_PROMPTS


def test_a_single_response_to_each_prompt_is_named_as_what_is_wrong(tmp_path: Path, small_model: Path) -> None:
    found = [{"prompt": row["prompt"], "responses": ["x", "x", " "]} for row in pool_rows()]
    path, run = started(tmp_path, small_model, found)
    message = refused(4, *on(run, "generate"), "--responses", path, "--num-prompts", 2)
    assert "no prompt has two different responses that could form a pair" in message


def test_responses_without_the_score_are_counted(tmp_path: Path, small_model: Path) -> None:
    path, run = started(tmp_path, small_model, pool_rows())
    said = done(*on(run, "generate"), "--responses", path, "--num-prompts", 7, "--score-field", "rm_a").stderr
    assert "12 of 56 responses have no `rm_a`" in said


@pytest.mark.parametrize(("has_scores", "hint"), [(True, "--score-field rm_a"), (False, "another --oracle")])
def test_a_recorded_oracle_without_answers_is_refused_at_once(
    tmp_path: Path, small_model: Path, has_scores: bool, hint: str
) -> None:
    found = pool_rows() if has_scores else [{"prompt": row["prompt"], "responses": ["x", "y"]} for row in pool_rows()]
    path, run = started(tmp_path, small_model, found)
    message = refused(
        4, *on(run, "generate"), "--responses", path, "--num-prompts", 7, "--set", "label.oracle=recorded"
    )
    assert "the responses came with no preferences" in message
    assert hint in message
