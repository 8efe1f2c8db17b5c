"""`activedpo select --pool`: pairs that exist already, from their file to the picked ones by one command."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, all_outputs, done, manifest, on, refused, rows, snapshot
from small_models import save_small_model
from zygote import Zygote

SMALL = {"adapter.r": 2, "featurize.proj_dim": 64, "featurize.unit_size": 4, "featurize.tokens_per_batch": 256}


def preferences(swapped: bool = False) -> list[dict[str, Any]]:
    """20 pairs, two of each prompt; `swapped` turns every verdict round."""
    pairs = [(f"answer {n * 37 % 11} of {n}", f"reply {n * 5 % 7} " + "so " * (n % 4) + f"to {n}") for n in range(20)]
    turn = -1 if swapped else 1
    return [
        {"prompt": f"Question {n // 2}", **dict(zip(("chosen", "rejected")[::turn], pair, strict=True))}
        for n, pair in enumerate(pairs)
    ]


def unlabelled() -> list[dict[str, Any]]:
    """The same pairs without a verdict."""
    return [
        {"prompt": row["prompt"], "response_a": row["chosen"], "response_b": row["rejected"]} for row in preferences()
    ]


def write(lines: list[dict[str, Any]], path: Path = Path("pairs.jsonl")) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def words(model: Path, *others: object, budget: int = 5, run: str = "run") -> tuple[object, ...]:
    assignments = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    return (
        "select",
        "--pool",
        "pairs.jsonl",
        "--model",
        model,
        "--budget",
        budget,
        "--run",
        Path(run).absolute(),
        *assignments,
    ) + (others)


def texts(row: dict[str, Any]) -> tuple[str, frozenset[str]]:
    sides = ("chosen", "rejected") if "chosen" in row else ("response_a", "response_b")
    return row["prompt"], frozenset(row[side] for side in sides)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", [preferences(), unlabelled()], ids=["chosen-rejected", "response_a-response_b"])
def test_only_the_pairs_of_the_file_are_candidates(small_model: Path, given: list[dict[str, Any]]) -> None:
    write(given)
    result = done(*words(small_model, "--output", "picked.jsonl", budget=20))
    assert result.stdout.split() == ["picked.jsonl"]
    picked = rows(Path("picked.jsonl"))
    assert [row["rank"] for row in picked] == list(range(1, 21))
    assert [row["score"] for row in picked] == sorted((row["score"] for row in picked), reverse=True)
    for row in picked:
        assert texts(given[row["row"] - 1]) == texts(row)
    assert sorted(row["row"] for row in picked) == list(range(1, 21))
    selection = rows(Path("run/iter-001/select/selection.jsonl"))
    assert [(row["pair_id"], row["score"]) for row in picked] == [(row["pair_id"], row["score"]) for row in selection]
    assert manifest(Path("run"), 1, "select")["summary"]["candidates"] == 20
    assert manifest(Path("run"), 1, "generate")["summary"] == {"prompts": 10, "responses": 40, "rendered": False}


def test_the_sides_stay_as_the_file_names_them(small_model: Path) -> None:
    given = unlabelled()
    given.append({"prompt": "Question 0", "response_a": given[1]["response_b"], "response_b": given[0]["response_a"]})
    given.append({"prompt": "Question 0", "response_a": given[0]["response_b"], "response_b": given[0]["response_a"]})
    write(given)
    done(*words(small_model, "--output", "picked.jsonl", budget=21))
    for row in rows(Path("picked.jsonl")):
        assert {key: row[key] for key in ("prompt", "response_a", "response_b")} == given[row["row"] - 1]
    assert "only 21 pairs" in refused(4, *words(small_model, budget=22, run="other"))


@pytest.mark.parametrize("method", ["activedpo", "k-center"])
def test_a_recorded_preference_has_no_influence(small_model: Path, method: str) -> None:
    found = []
    for run, swapped in (("as-it-is", False), ("swapped", True)):
        write(preferences(swapped))
        done(*words(small_model, "--method", method, "--output", f"{run}.jsonl", run=run))
        assert rows(Path(f"{run}/pool/preferences.jsonl"))
        found.append(Path(f"{run}.jsonl").read_bytes())
    assert found[0] == found[1]


def test_the_picked_pairs_go_on_to_label_and_train(small_model: Path) -> None:
    given = preferences()
    write(given)
    done(*words(small_model))
    run = Path("run").absolute()
    done(*on(run, "label"), "--oracle", "recorded")
    learned = rows(run / "iter-001/label/preferences.jsonl")
    assert len(learned) == 5
    for row in learned:
        assert {key: row[key] for key in ("prompt", "chosen", "rejected")} in given
    done(*on(run, "train"), "--epochs", 1)
    assert "holds out no prompts" in refused(4, *on(run, "evaluate"))
    before = snapshot(run)
    assert "holds out no prompts" in refused(2, *on(run, "run"))
    assert snapshot(run) == before


def test_typed_again_it_is_up_to_date_and_other_work_is_refused(small_model: Path) -> None:
    write(preferences())
    again = words(small_model, "--output", "picked.jsonl")
    done(*again)
    before, picked = snapshot(Path("run")), Path("picked.jsonl").read_bytes()
    clock = time.monotonic()
    assert "picked.jsonl is up to date: 5 of 20 pairs" in done(*again).stderr
    assert time.monotonic() - clock < 2
    shown = json.loads(done(*again, "--json").stdout)
    assert (shown["state"], shown["output"], shown["summary"]["selected"]) == ("up to date", "picked.jsonl", 5)
    for other, difference in (
        (("--budget", 6), "select.budget  5 → 6"),
        (("--method", "random"), "select.method  activedpo → random"),
        (("--set", "featurize.proj_dim=32"), "featurize.proj_dim  64 → 32"),
        (("--oracle", "recorded"), "label.oracle  human → recorded"),
    ):
        assert difference in refused(3, *again, *other)
    write(preferences()[:-1])
    assert "has changed" in refused(3, *again)
    write(preferences())
    assert snapshot(Path("run")) == before

    features = {name: facts for name, facts in before.items() if "featurize/" in name}
    Path("picked.jsonl").write_text("mine\n")
    said = refused(3, *again)
    assert "was not made by this command" in said
    assert "other lines than the picks of" in said
    assert Path("picked.jsonl").read_text() == "mine\n"
    done(*again, "--force")
    assert Path("picked.jsonl").read_bytes() == picked
    done(*again, "--budget", 6, "--force")
    assert len(rows(Path("picked.jsonl"))) == 6
    assert {name: facts for name, facts in snapshot(Path("run")).items() if "featurize/" in name} == features


def test_killed_among_the_features_it_goes_on(small_model: Path, zygote: Zygote, workplace: Path) -> None:
    write(preferences())
    done(*words(small_model, "--output", "whole.jsonl", run="whole"))
    again = words(small_model, "--output", "picked.jsonl")
    unit = Path("run/iter-001/featurize/features-00000.safetensors")
    status = zygote.stop_when(again, workplace, unit.exists, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not Path("run/iter-001/featurize/manifest.json").exists(), "it was killed too late to prove anything"
    assert not Path("picked.jsonl").exists()
    kept = unit.stat().st_mtime_ns
    done(*again)
    assert unit.stat().st_mtime_ns == kept
    assert Path("picked.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert all_outputs(Path("run")) == all_outputs(Path("whole"))


def turns(*contents: str) -> list[dict[str, str]]:
    """Messages, the user's first."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(contents)]


def test_rows_without_a_choice_are_left_out_and_counted(small_model: Path) -> None:
    """As real data has them; the picks are those of the file without these rows."""
    given = preferences()
    write(given)
    done(*words(small_model, "--output", "without.jsonl", run="without"))
    given.insert(2, {"prompt": "Question 0", "chosen": "the same", "rejected": "the same"})
    given.insert(5, {"prompt": "Of its own", "chosen": "words", "rejected": " \n"})
    given.append({"prompt": "Question 1", "chosen": "", "rejected": ""})
    given.append({"prompt": " ", "chosen": "x", "rejected": "y"})
    given.append({"prompt": "Question 0", "chosen": given[0]["rejected"], "rejected": given[0]["chosen"]})
    given.append({"prompt": "Question 0", "chosen": given[0]["chosen"], "rejected": "long " * 60})
    write(given)
    again = words(small_model, "--output", "picked.jsonl", "--json")
    result = done(*again)
    assert (
        "26 rows of pairs.jsonl: 20 candidates; left out 1 with an empty prompt (line 24), 2 with an empty response "
        "(lines 6, 23), 1 with equal responses (line 3), 1 repeated (line 25), 1 longer than the model's context (line 26)"
    ) in " ".join(result.stderr.split())
    lines = {
        "empty_prompt": [24],
        "different_prompts": [],
        "empty_response": [6, 23],
        "equal_responses": [3],
        "repeated": [25],
        "too_long": [26],
        "same_tokens": [],
        "held_out": [],
    }
    counts = {reason: len(found) for reason, found in lines.items()}
    assert json.loads((Path("run/pool/manifest.json")).read_text())["summary"]["left_out_rows"] == counts
    for told in (json.loads(result.stdout), json.loads(done(*again).stdout)):
        assert (told["rows"], told["summary"]["candidates"]) == (26, 20)
        assert (told["left_out_rows"], told["left_out_lines"]) == (counts, lines)
    picked, without = rows(Path("picked.jsonl")), rows(Path("without.jsonl"))
    assert [texts(row) for row in picked] == [texts(row) for row in without]
    for row in picked:
        assert texts(given[row["row"] - 1]) == texts(row)


def test_messages_that_hold_their_prompt_are_accepted(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """TRL's conversational form without `prompt`: the shared leading messages are the prompt."""
    model = save_small_model(tmp_path_factory.mktemp("chat") / "llama", tokenizer="bytes-chat")
    explicit = [
        {
            "prompt": [*turns("Hello", "Hi"), *turns(row["prompt"])],
            **{side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")},
        }
        for row in preferences()
    ]
    write(explicit)
    picked = []
    for run in ("explicit", "implicit"):
        done(*words(model, "--output", f"{run}.jsonl", run=run))
        picked.append(rows(Path(f"{run}.jsonl")))
        write([{side: row["prompt"] + row[side] for side in ("chosen", "rejected")} for row in explicit])
    assert picked[0] == picked[1]
    assert picked[0][0]["prompt"][:2] == turns("Hello", "Hi")


FINE = preferences()[:6]
BAD_FILES = [
    ([], "holds no rows"),
    ([*FINE, {"prompt": "Q", "chosen": "x"}], "line 7 has only one of"),
    ([*FINE, {"chosen": "x", "rejected": "y"}], "line 7 has no"),
    ([*FINE, {"prompt": "Q", "response": "x"}], "line 7 holds no pair"),
    ([*FINE, {"prompt": "Q", "responses": ["x", "y"]}], "line 7 holds no pair"),
    ([*FINE, {"prompt": "Q", "response_a": "x"}], "line 7 has no responses"),
    ([{"prompt": "Q", "response_a": "x", "response_b": " "}], "no pair of two different responses with text"),
    (
        [{"prompt": "Q", "chosen": "x", "rejected": "x"}] * 7,
        "7 with equal responses (lines 1, 2,",
    ),
    ([{"prompt": "", "response_a": "x", "response_b": "y"}], "1 with an empty prompt (line 1)"),
    (FINE[:4], "only 4 pairs of pairs.jsonl"),
    (FINE[:1], "only 1 pair of pairs.jsonl"),
    ([*FINE[:4], {"prompt": "Q", "chosen": "x", "rejected": "long " * 60}], "only 4 pairs of pairs.jsonl"),
    ([*FINE, {"chosen": "Q: x", "rejected": "Q: y"}], "trl.extract_prompt"),
    ([*FINE[:4], {"prompt": "Q", "chosen": "x", "rejected": "x"}], "only 4 pairs of pairs.jsonl"),
    (
        [{"chosen": turns("Q", "x"), "rejected": turns("R", "y")}],
        "left out 1 whose responses answer different prompts (line 1)",
    ),
]


@pytest.mark.parametrize(("lines", "message"), BAD_FILES)
def test_a_bad_file_is_refused_and_nothing_is_left(small_model: Path, lines: list, message: str) -> None:
    write(lines)
    assert message in refused(4, *words(small_model, "--output", "picked.jsonl"))
    assert [path.name for path in Path().iterdir()] == ["pairs.jsonl"]


def test_too_few_pairs_within_the_context_are_noticed_before_features_are_computed(small_model: Path) -> None:
    given = preferences()
    given[3]["rejected"] = "long " * 60
    write(given)
    assert "only 19 pairs" in refused(4, *words(small_model, budget=20))
    assert "only 19 pairs" in refused(4, *words(small_model, budget=25))
    assert not Path("run").exists()
    done(*words(small_model, "--output", "picked.jsonl", budget=19))
    assert sorted({*range(1, 21)} - {row["row"] for row in rows(Path("picked.jsonl"))}) == [4]


def test_bad_words_are_refused_and_nothing_is_left(small_model: Path) -> None:
    write(preferences())
    pool = words(small_model)
    for others in (
        ("--features", "F.safetensors"),
        ("--iteration", 1),
        ("--set", "generate.num_prompts=3"),
        ("--set", "prompts.eval_prompts=3"),
        ("--set", "train.learning_rate=0.1"),
        ("--set", "select.methods.activedpo.rigde=1"),
        ("--method", "no-such-method"),
        ("--output", "pairs.jsonl"),
        ("--output", "."),
        ("--output", "nowhere/picked.jsonl"),
    ):
        refused(2, *pool, *others)
        assert [path.name for path in Path().iterdir()] == ["pairs.jsonl"], others
    for others in (("--ridge", 0), ("--ridge", -1), ("--set", "select.methods.activedpo.ridge=nan")):
        assert "λ must be a positive number" in refused(4, *pool, *others)
        assert [path.name for path in Path().iterdir()] == ["pairs.jsonl"], others
    assert "needs a model" in refused(
        2, "select", "--pool", "pairs.jsonl", "--run", Path("run").absolute(), "--budget", 5
    )
    assert "--model goes with --pool" in refused(2, "select", "--model", small_model)
    Path("picked.jsonl").write_text("mine\n")
    assert "nothing says what it was made from" in refused(3, *pool, "--output", "picked.jsonl")
    assert sorted(path.name for path in Path().iterdir()) == ["pairs.jsonl", "picked.jsonl"]


def test_without_a_run_it_is_the_default_one(small_model: Path) -> None:
    write(preferences())
    typed = [str(word) for word in words(small_model)]
    place = typed.index("--run")
    typed = [*typed[:place], *typed[place + 2 :]]
    done(*typed)
    assert Path("runs/default/iter-001/select/selection.jsonl").is_file()
    write(preferences()[:9], Path("more.jsonl"))
    typed[typed.index("pairs.jsonl")] = "more.jsonl"
    assert "the same command with `--run more`" in refused(3, *typed)
    done(*typed, "--run", "more")
    assert "the same command with `--run more-2`" in refused(3, *typed)


def test_pairs_that_the_oracle_could_not_answer_are_not_counted_as_candidates(small_model: Path) -> None:
    given = [
        {**row, "preference": "a" if place < 6 else None} for place, row in enumerate({**row} for row in unlabelled())
    ]
    write(given)
    assert "only 6 pairs" in refused(4, *words(small_model, "--oracle", "recorded", budget=7))
    assert not Path("run/iter-001/featurize").exists()
    done(*words(small_model, "--oracle", "recorded", budget=6))


def test_status_says_that_nothing_is_evaluated(small_model: Path) -> None:
    write(preferences())
    done(*words(small_model))
    run = Path("run").absolute()
    done(*on(run, "label"), "--oracle", "recorded")
    done(*on(run, "train"), "--epochs", 1)
    assert "evaluate   – not part of this run" in done(*on(run, "status")).stdout
    found = json.loads(done(*on(run, "status"), "--json").stdout)
    assert found["iterations"][0]["stages"]["evaluate"]["state"] == "not part of this run"
    assert "generate" in found["next"]
    assert "--iteration 2" in found["next"]


def test_help_tells_the_forms_apart() -> None:
    shown = " ".join(activedpo("select", "--help").stdout.split())
    for words_of_form in ("In a run", "With --features", "With --pool"):
        assert words_of_form in shown


def test_an_export_of_answers_is_a_pool_of_the_same_pairs(small_model: Path) -> None:
    """Texts that a spreadsheet would run are guarded in the export, and the choice is that among the texts themselves."""
    given = [
        row | {side: sign + row[side] for side, sign in zip(("response_a", "response_b"), "=-", strict=True)}
        for row in unlabelled()
    ]
    write(given)
    done(*words(small_model, "--output", "picked.jsonl", budget=20))
    assert (
        activedpo("label", "--run", Path("run").absolute(), "--oracle", "human", "--export", "pairs.csv").exit_code == 5
    )
    assert "'=answer" in Path("pairs.csv").read_text()
    again = [word if word != "pairs.jsonl" else "pairs.csv" for word in words(small_model, budget=20, run="again")]
    done(*again, "--output", "again.jsonl")
    first, second = (
        [(texts(row), row["score"]) for row in rows(Path(name))] for name in ("picked.jsonl", "again.jsonl")
    )
    assert dict(second) == pytest.approx(dict(first), rel=1e-4)


def test_prompts_that_were_cut_are_counted_aloud(small_model: Path) -> None:
    asked = [{**row, "prompt": f"Of some length: {row['prompt']}"} for row in preferences()]
    write([{**row, **{side: row["prompt"] + row[side] for side in ("chosen", "rejected")}} for row in asked])
    result = done(*words(small_model, "--output", "picked.jsonl", budget=20))
    assert "the prompt was taken off the start of what answers it in 20 rows" in result.stderr
    assert {texts(row) for row in rows(Path("picked.jsonl"))} == {texts(row) for row in asked}


def test_rows_of_an_import_without_an_answer_are_named(small_model: Path) -> None:
    write(unlabelled())
    done(*words(small_model, "--output", "picked.jsonl", budget=4))
    label = ("label", "--run", Path("run").absolute(), "--oracle", "human")
    assert activedpo(*label, "--export", "answers.csv").exit_code == 5
    filled = Path("answers.csv").read_text().replace('"","","","",', '"a","","","",', 1)
    Path("answers.csv").write_text(filled)
    said = activedpo(*label, "--import", "answers.csv")
    assert "1 new answer from `answers.csv`" in said.stderr
    assert "3 rows have no preference yet (lines 3, 4, 5)" in " ".join(said.stderr.split())
