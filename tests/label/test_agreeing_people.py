"""How far people agree, against sums by hand and statsmodels, and through the command line."""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from command_line import activedpo, done, on, rows
from small_runs import small_run

from activedpo_cli.label.agreement import Rating, agreement_of


def rating(person, pair, said, *, role="selected", known=None, first="a", seconds=10.0, prompt=None, iteration=1):
    return Rating(
        annotator=person,
        iteration=iteration,
        pair_id=f"p{pair:06d}/i001/r0-r1",
        prompt_id=prompt or f"p{pair:06d}",
        role=role,
        said=said,
        known=known,
        first=first,
        seconds=seconds,
    )


def both(pair, one, other, **more):
    return [rating("ann", pair, one, **more), rating("bob", pair, other, **({"role": "overlap"} | more))]


def test_few_pairs_are_counted_and_no_more():
    found = agreement_of([answer for pair in range(29) for answer in both(pair, "a", "a")])
    assert (found.selected.agreed.number, found.selected.agreed.of) == (29, 29)
    assert found.selected.agreed.share is found.selected.kappa is found.selected.alpha is None
    assert found.control is None


def test_kinds_of_pairs_are_kept_apart():
    answers = [answer for pair in range(30) for answer in both(pair, "a", "b")]
    answers += [answer for pair in range(30, 70) for answer in both(pair, "a", "a", role="control")]
    found = agreement_of(answers)
    assert (found.selected.pairs, found.selected.agreed.share) == (30, 0.0)
    assert (found.control.pairs, found.control.agreed.share) == (40, 1.0)


def test_a_skipped_pair_has_no_answer():
    answers = [answer for pair in range(30) for answer in both(pair, "a", "a")] + both(31, "a", None)
    assert agreement_of(answers).selected.pairs == 30


def test_who_decided_is_counted_apart_from_ties():
    answers = [answer for pair in range(40) for answer in both(pair, "a", "a" if pair < 35 else "tie")]
    found = agreement_of(answers).selected
    assert (found.agreed.number, found.agreed.of) == (35, 40)
    assert (found.decided.number, found.decided.of) == (35, 35)


def test_a_third_answer_is_no_evidence_of_disagreement():
    """Where two differ a third is asked; counted too, people who answer by chance would seem to agree."""
    chance = random.Random(1)
    answers = []
    for pair in range(400):
        one, other = chance.choice("ab"), chance.choice("ab")
        answers += both(pair, one, other) + ([rating("cat", pair, chance.choice("ab"))] if one != other else [])
    found = agreement_of(answers).selected
    assert abs(found.alpha) < 0.1
    assert abs(found.kappa) < 0.1


def test_no_kappa_among_three_people():
    answers = [answer for pair in range(30) for answer in both(pair, "a", "a")] + both(31, "a", "b")
    answers += [rating("cat", 32, "a"), rating("bob", 32, "b", role="overlap")]
    found = agreement_of(answers).selected
    assert found.kappa is None
    assert found.alpha is not None


def test_pairs_of_one_prompt_are_drawn_together():
    """Ten prompts of eight pairs, on all of which people agree or on none, are less evidence than eighty prompts."""

    def answers(prompt_of):
        return [
            answer
            for pair in range(80)
            for answer in both(
                pair, "ab"[pair % 2], "ab"[(pair + (pair // 8 in (2, 5, 8))) % 2], prompt=prompt_of(pair)
            )
        ]

    together, apart = (
        agreement_of(answers(of)).selected for of in (lambda pair: f"p{pair // 8}", lambda pair: f"p{pair}")
    )
    assert together.alpha == apart.alpha
    (low, high), (low_apart, high_apart) = together.alpha_interval, apart.alpha_interval
    assert high - low > 1.5 * (high_apart - low_apart)


def test_a_person_by_themselves():
    answers = [rating("ann", pair, "a", first="a" if pair < 33 else "b") for pair in range(50)]
    answers += [
        rating("ann", pair, "a" if pair < 6 else "b", role="repeat", first="b", seconds=1.5) for pair in range(10)
    ]
    answers += [rating("ann", 60 + pair, "a", role="gold", known="a" if pair else "b", first=None) for pair in range(5)]
    (person,) = agreement_of(answers).people
    assert (person.repeated.number, person.repeated.of) == (6, 10)
    assert (person.gold.number, person.gold.of) == (4, 5)
    assert (person.quick.number, person.quick.of) == (10, 65)
    assert person.median_seconds == 10.0
    assert (person.left.number, person.left.of) == (33, 50)
    assert person.left_p == pytest.approx(0.0328, abs=5e-4)  # scipy.stats.binomtest(33, 50)


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """A run that waits for people to answer 50 pairs, 30 of them twice, with controls and gold."""
    folder = tmp_path_factory.mktemp("fifty")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Tell me of {n}"}) + "\n" for n in range(40)))
    run = small_run(folder / "run", small_model, prompts, "human", generate__num_prompts=30, select__budget=50)
    for stage in ("generate", "featurize", "select"):
        done(*on(run, stage), "--quiet")
    return run


def answer_at_the_terminal(run: Path, person: str, words: list[str], chance: random.Random) -> None:
    typed = "".join(chance.choice("112t") + "\n" for _ in range(200))
    activedpo(*on(run, "label"), *words, "--annotator", person, typed=typed)


def answer_in_a_file(run: Path, person: str, words: list[str], path: Path, chance: random.Random) -> None:
    activedpo(*on(run, "label"), *words, "--annotator", person, "--export", path)
    filled = [row | {"preference": chance.choice(["a", "b", "tie"])} for row in rows(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in filled))
    activedpo(*on(run, "label"), "--annotator", person, "--import", path)


def test_a_session_of_fifty_pairs_by_two_people(fifty: Path, tmp_path: Path) -> None:
    """One at the terminal and one in a file; every figure is worked out again from the log alone."""
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    run = Path(shutil.copytree(fifty, tmp_path / "run"))
    gold = tmp_path / "gold.jsonl"
    gold.write_text(
        "".join(json.dumps({"prompt": f"{n}?", "chosen": f"{n}", "rejected": "no"}) + "\n" for n in range(6))
    )
    words = ["--overlap", "30", "--control", "35", "--repeat", "5", "--gold", str(gold), "--gold-pairs", "6"]
    chance = random.Random(7)
    answer_at_the_terminal(run, "ann", words, chance)
    people = json.loads(done(*on(run, "status"), "--json").stdout)["agreement"]["people"]
    assert [(person["annotator"], person["repeated"]["of"]) for person in people] == [("ann", 5)], "while it is open"
    answer_in_a_file(run, "bob", words, tmp_path / "bob.jsonl", chance)
    done(*on(run, "label"))

    found = json.loads(done(*on(run, "show", "labels"), "--json").stdout)
    said = log_of(run)
    for name, roles, pairs in (("control", {"control"}, 35), ("selected", {"selected", "overlap"}, 30)):
        shared = two_answers(said, roles)
        assert len(shared) == pairs
        agreed = sum(one == other for one, other in shared)
        between = found[name]
        assert (between["pairs"], between["agreed"]["number"], between["agreed"]["share"]) == (
            pairs,
            agreed,
            pytest.approx(agreed / pairs),
        )
        assert between["agreed"]["interval"] == pytest.approx(
            proportion.proportion_confint(agreed, pairs, method="wilson")
        )
        names = sorted({value for pair in shared for value in pair})
        table = np.array([[sum(pair == (x, y) for pair in shared) for y in names] for x in names])
        assert between["kappa"] == pytest.approx(inter_rater.cohens_kappa(table, return_results=False))
        assert between["kappa_interval"][0] <= between["kappa"] <= between["kappa_interval"][1]
    people = {person["annotator"]: person for person in found["people"]}
    for name, person in people.items():
        own = [label for label in said if label["annotator"] == name]
        assert person["answers"] == len(own)
        right = [label["preferred_id"] == label["known_id"] for label in own if label["role"] == "gold"]
        assert (person["gold"]["number"], person["gold"]["of"]) == (sum(right), 6)
    assert people["ann"]["repeated"]["of"] == 5
    assert people["bob"]["repeated"]["of"] == 0

    shown = done(*on(run, "show", "labels")).stdout
    assert shown.index("pairs at random") < shown.index("selected pairs")
    assert "nobody should be judged by the selected ones" in " ".join(shown.split())
    status = json.loads(done(*on(run, "status"), "--json").stdout)
    assert status["agreement"]["control"] == found["control"]
    assert Counter(label["role"] for label in said) == {
        "selected": 50,
        "overlap": 30,
        "control": 70,
        "gold": 12,
        "repeat": 5,
    }


def log_of(run: Path) -> list[dict]:
    return [event["label"] for event in rows(run / "iter-001" / "label" / "labels.jsonl") if event["event"] == "label"]


def two_answers(said: list[dict], roles: set[str]) -> list[tuple[str, str]]:
    """What ann and bob said of each pair that both answered, as stored responses."""
    by_pair: dict[str, dict[str, str]] = {}
    for label in said:
        if label["role"] in roles:
            names = dict(zip(label["pair_id"].rpartition("/")[2].split("-"), "ab", strict=True))
            side = names.get((label["preferred_id"] or "").rpartition("/")[2], label["outcome"])
            by_pair.setdefault(label["pair_id"], {})[label["annotator"]] = side
    pairs = [pair for pair in by_pair.values() if len(pair) == 2]
    return [(pair["ann"], pair["bob"]) for pair in pairs]


def test_a_run_that_no_person_labelled(fifty: Path) -> None:
    assert "No person has answered" in done(*on(fifty, "show", "labels")).stdout
    assert "agreement" not in json.loads(done(*on(fifty, "status"), "--json").stdout)
