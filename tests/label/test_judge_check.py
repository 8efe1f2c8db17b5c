"""`judge check` and `--dry-run`, through the command line: a judge beside people, and what asking it would take."""

import json
import math
import shutil
from pathlib import Path

import pytest
from command_line import activedpo, done, on, refused, rows, snapshot, without
from judge_server import JudgeServer, Question, Raw, by_text, honest, judge_server, reply, verdict

from activedpo_cli.base.records import Label, Response
from activedpo_cli.label import judge_check
from activedpo_cli.oracles.base import Comparison, Judgement
from activedpo_cli.statistics.agreement import cohen_kappa, wilson_interval
from activedpo_cli.store.label_log import LabelLog

PAIRS = 24


def settings(server: JudgeServer | None, **values: object) -> list[str]:
    values = {"concurrency": 1, **({"base_url": server.url} if server else {}), **values}
    return [word for key, value in values.items() for word in ("--set", f"label.judge.{key}={json.dumps(value)}")]


def checking(run: Path, server: JudgeServer, *words: object, **values: object):
    return ("judge", "check", "--run", run, "--oracle", "judge:m", *settings(server, **values), *words)


@pytest.fixture(scope="module")
def answered_original(many_selected_original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People like the text with the larger digest in 15 pairs, the other in 5; 2 ties, one both bad, one skipped."""
    folder = tmp_path_factory.mktemp("answered")
    run, path = Path(shutil.copytree(many_selected_original, folder / "many")), folder / "pairs.jsonl"
    refused(5, *on(run, "label"), "--oracle", "human", "--export", path)
    asked = rows(path)
    wanted = ["like"] * 15 + ["unlike"] * 5 + ["tie"] * 2 + ["both_bad", "skip"]
    for row, answer in zip(asked, wanted, strict=True):
        question = Question({}, {}, "", "", ("", ""), (row["response_a"], row["response_b"]))
        liked, other = ("a", "b") if by_text(question) == 0 else ("b", "a")
        row["preference"] = {"like": liked, "unlike": other}.get(answer, answer)
    path.write_text("".join(json.dumps(row) + "\n" for row in asked))
    done(*on(run, "label"), "--import", path)
    return run


@pytest.fixture
def answered(answered_original: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(answered_original, tmp_path / "many"))


def test_a_judge_is_compared_with_people(answered: Path) -> None:
    before = snapshot(answered)
    with judge_server() as server:
        found = json.loads(done(*checking(answered, server, "--json")).stdout)
        assert server.calls == 2 * 22
        said = done(*checking(answered, server))
        assert server.calls == 2 * 22
    assert found["left_out"] == {"both bad": 1, "skip": 1}
    selected = found["agreement"]["selected"]
    assert (selected["pairs"], selected["judged"], selected["agree"]) == (22, 22, 15)
    assert selected["agree_interval"] == pytest.approx(wilson_interval(15, 22))
    assert (selected["both_named"], selected["agree_named"]) == (20, 15)
    assert found["agreement"]["all"] == selected
    people, judge = zip(*[(row["people"], row["judge"]) for row in found["pairs"]], strict=True)
    assert selected["kappa"] == pytest.approx(cohen_kappa(people, judge))
    assert [(row["threshold"], row["answers"], row["agree"]) for row in found["thresholds"]] == [
        (0.5, 22, 15),
        (0.25, 22, 15),
        (0.0, 22, 15),
    ]
    assert found["judge"]["consistency"] == 1
    assert found["judge"]["calls"] == 44
    assert said.stdout.rstrip().endswith("judge-check-001.json")
    assert "15 of 22" in said.stdout
    assert "left out of what people answered: 1 both bad, 1 skip" in said.stdout
    assert "all of these pairs were selected" in said.stderr
    after = snapshot(answered)
    assert {*after} - {*before} == {"judge-check-001.json", "judge-check-replies.jsonl"}
    assert without(after, "judge-check") == before
    assert activedpo("verify", "--run", answered).exit_code == 0


def test_the_longest_response_is_what_a_judge_has_to_beat(answered: Path) -> None:
    with judge_server() as server:
        found = json.loads(done(*checking(answered, server, "--json")).stdout)
    labels = {row["label"]["pair_id"]: row["label"] for row in rows(answered / "iter-001/label/labels.jsonl")}
    texts = {
        row["response_id"]: row["text"]
        for path in (answered / "iter-001" / "generate").glob("responses-*.jsonl")
        for row in rows(path)
    }
    longer, unequal = 0, 0
    for pair, label in labels.items():
        stem, _, names = pair.rpartition("/")
        a, b = (len(texts[f"{stem}/{name}"]) for name in names.split("-"))
        if label["outcome"] == "chosen" and a != b:
            unequal += 1
            longer += (label["preferred_id"] == f"{stem}/{names.split('-')[0]}") == (a > b)
    figures = found["agreement"]["all"]
    assert (figures["longer_agrees"], figures["longer_of"]) == (longer, unequal)


def test_fewer_pairs_are_the_same_ones_every_time(answered: Path) -> None:
    with judge_server() as server:
        first = json.loads(done(*checking(answered, server, "--pairs", 5, "--json")).stdout)
        again = json.loads(done(*checking(answered, server, "--pairs", 5, "--json")).stdout)
        assert (first["state"], again["state"]) == ("done", "up to date")
        assert server.calls == 10
        more = json.loads(done(*checking(answered, server, "--pairs", 8, "--json")).stdout)
        assert server.calls == 16
    assert [row["pair_id"] for row in more["pairs"][:5]] == [row["pair_id"] for row in first["pairs"]]
    assert more["file"].endswith("judge-check-002.json")


def test_a_rubric_that_was_changed_after_looking_wants_fresh_pairs(answered: Path, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("shorter")
    with judge_server() as server:
        first = json.loads(done(*checking(answered, server, "--pairs", 12, "--json")).stdout)
        other = json.loads(done(*checking(answered, server, "--pairs", 10, "--json", rubric=str(rubric))).stdout)
        seen = {row["question"] for row in first["pairs"]}
        assert not seen & {row["question"] for row in other["pairs"]}
        assert (other["fresh"], "fresh" in other["agreement"]) == (10, False)
        rubric.write_text("longer")
        result = done(*checking(answered, server, "--pairs", 20, rubric=str(rubric)))
    assert "20 of 20 pairs were looked at before, in `judge-check-001.json`, with another rubric" in result.stderr
    assert "fresh pairs are needed" in result.stderr
    record = json.loads((answered / "judge-check-003.json").read_text())
    assert record["agreement"]["looked_at_before"]["pairs"] == 20


def test_what_a_stage_was_told_counts_in_a_check(answered: Path) -> None:
    """The same judge, the same texts: nothing is asked twice in a run, in either direction."""
    with judge_server() as server:
        done(*checking(answered, server))
        done(*on(answered, "label"), "--oracle", "judge:m", *settings(server), "--force")
        assert server.calls == 2 * PAIRS


def test_a_check_of_a_judge_that_answers_by_position(answered: Path) -> None:
    with judge_server(lambda question: verdict(question, 1)) as server:
        said = refused(4, *checking(answered, server))
        assert server.calls == 40
    assert "the first response won 0 % (0 of 40) verdicts" in " ".join(said.split())
    assert not (answered / "judge-check-001.json").exists()


def test_a_check_stops_at_a_limit_and_goes_on(answered: Path) -> None:
    with judge_server() as server:
        assert "max_calls is 7" in refused(5, *checking(answered, server, max_calls=7))
        assert server.calls == 7
        done(*checking(answered, server))
        assert server.calls == 44


def test_pairs_without_a_verdict_are_counted_and_are_no_ties(answered: Path) -> None:
    hopeless: set[str] = set()

    def answer(question: Question) -> Raw:
        pair = "".join(sorted(question.texts))
        hopeless.add(pair) if len(hopeless) < 2 else None
        return reply("?") if pair in hopeless else honest(question)

    with judge_server(answer) as server:
        result = done(*checking(answered, server))
    found = json.loads((answered / "judge-check-001.json").read_text())["agreement"]["all"]
    assert (found["pairs"], found["judged"], found["without_verdict"]) == (22, 20, 2)
    assert "no verdict about 2 pairs; replies that were none: 12 × not one JSON object" in result.stdout


def test_nobody_has_answered(many_selected: Path) -> None:
    with judge_server() as server:
        assert "nobody has answered" in refused(4, *checking(many_selected, server))
        done(*on(many_selected, "label"), "--oracle", "judge:m", *settings(server))
        calls = server.calls
        assert "nobody has answered" in refused(4, *checking(many_selected, server)), "a judge is nobody"
        assert server.calls == calls


def test_an_oracle_that_is_no_judge(answered: Path) -> None:
    assert "is no judge" in refused(2, "judge", "check", "--run", answered)
    assert "is no judge" in refused(2, "judge", "check", "--run", answered, "--oracle", "python:letter_rule:score")


@pytest.mark.parametrize("damaged", ["[]", '{"schema": 1, "rubric": "sha256:0", "asked": 0, "pairs": []}'])
def test_a_damaged_check_is_named(answered: Path, damaged: str) -> None:
    (answered / "judge-check-001.json").write_text(damaged)
    with judge_server() as server:
        assert "judge-check-001.json" in refused(4, *checking(answered, server))
    assert server.calls == 0


def test_texts_that_have_changed_since_are_left_out(answered: Path) -> None:
    path = next((answered / "iter-001" / "generate").glob("responses-*.jsonl"))
    found = rows(path)
    path.write_text("".join(json.dumps(row | {"text": row["text"] + "!"}) + "\n" for row in found))
    with judge_server() as server:
        record = json.loads(done(*checking(answered, server, "--json")).stdout)
    assert record["left_out"]["about other texts than are there now"] > 0


def test_control_pairs_stand_beside_selected_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: of four control pairs three agree, of two selected ones none; one control pair has no verdict."""

    def pair(number: int, role: str, answer: str) -> judge_check.AnsweredPair:
        a, b = (
            Response(
                response_id=f"p{number}/i001/{name}",
                prompt_id=f"p{number}",
                prompt_token_ids=[],
                token_ids=[],
                text="x" * length,
                finish_reason="stop",
            )
            for name, length in (("r0", 2), ("r1", 1))
        )
        return judge_check.AnsweredPair(1, role, Comparison(f"p{number}/i001/r0-r1", "?", a, b), answer)

    taken = [pair(n, "control", answer) for n, answer in enumerate(["a", "b", "tie", "a"])]
    taken += [pair(4, "selected", "a"), pair(5, "selected", "tie")]
    said = [("a", "a"), ("b", "b"), ("a", "b"), ("a", None), ("b", "b"), ("b", "b")]
    known = [Judgement(pair.comparison.pair_id, *both, {}) for pair, both in zip(taken, said, strict=True)]
    found = judge_check._agreement(taken, known, [True] * 6, 0)
    control, selected = found["control"], found["selected"]
    assert (control["pairs"], control["judged"], control["agree"]) == (4, 3, 3)
    assert (control["longer_agrees"], control["longer_of"]) == (2, 3)
    assert (selected["judged"], selected["agree"], selected["both_named"]) == (2, 0, 1)
    assert found["all"]["agree"] == 3
    thresholds = judge_check._thresholds(taken, known)
    assert [(row["role"], row["of"], row["answers"], row["agree"]) for row in thresholds] == [
        *[("selected", 2, 2, 0)] * 3,
        *[("control", 4, 2, 2)] * 3,
    ], "orders that disagree are never sure"


def test_roles_decide_which_labels_are_compared(tmp_path: Path) -> None:
    log = LabelLog(tmp_path / "labels.jsonl")
    given = [
        ("selected", "p1"),
        ("overlap", "p1"),
        ("control", "p2"),
        ("control", "p2"),
        ("gold", "p3"),
        ("repeat", "p1"),
    ]
    for number, (role, pair) in enumerate(given):
        log.append(
            Label(
                pair_id=pair,
                outcome="tie",
                preferred_id=None,
                oracle="human",
                annotator=f"person {number}",
                role=role,  # type: ignore[arg-type]
            )
        )
    taken = [(label.pair_id, label.annotator, role) for label, role in judge_check._labels_of_people(log)]
    assert taken == [("p1", "person 0", "selected"), ("p2", "person 2", "control")]


def test_what_a_judge_left_to_people_stands_apart(tmp_path: Path) -> None:
    """Of p1 and p2, which two were to answer, the judge left p2; p3 it left, p4 it answered; a control it was not asked."""
    log = LabelLog(tmp_path / "labels.jsonl")
    judge, ann, bo = None, "ann", "bo"
    for pair, who, role in [
        ("p1", judge, "selected"),
        ("p4", judge, "selected"),
        ("p1", ann, "overlap"),
        ("p2", ann, "selected"),
        ("p2", bo, "overlap"),
        ("p3", ann, "selected"),
        ("p5", ann, "control"),
    ]:
        log.append(
            Label(
                pair_id=pair,
                outcome="skip" if (pair, who) == ("p2", ann) else "tie",
                preferred_id=None,
                oracle="mixed:m",
                annotator=who,
                score_a=0.5 if who is judge else None,
                score_b=0.5 if who is judge else None,
                role=role,  # type: ignore[arg-type]
            )
        )
    taken = [(label.pair_id, label.annotator, role) for label, role in judge_check._labels_of_people(log)]
    assert taken == [("p1", ann, "selected"), ("p2", bo, "selected"), ("p3", ann, "left"), ("p5", ann, "control")]


def test_pairs_that_a_judge_left_promise_nothing_of_the_others(many_selected: Path) -> None:
    """It contradicts itself on four pairs, which people get; about the twenty that it answered nobody was asked."""
    contradicted: dict[frozenset[str], tuple[str, str]] = {}

    def answer(question: Question) -> Raw:
        pair = frozenset(question.texts)
        if len(contradicted) < 4:
            contradicted.setdefault(pair, question.texts)
        return verdict(question, 0) if pair in contradicted else honest(question)

    with judge_server(answer) as server:
        words = (*on(many_selected, "label"), "--oracle", "mixed:m", "--annotator", "ann")
        assert activedpo(*words, *settings(server), typed="1\n1\n1\n1\n").exit_code == 0
        result = done(*checking(many_selected, server))
    record = json.loads((many_selected / "judge-check-001.json").read_text())
    assert [record["agreement"][name]["pairs"] for name in ("left", "selected", "control")] == [4, 0, 0]
    assert record["thresholds"] == []
    assert "4 of 4 pairs are what a judge left to people" in result.stderr
    assert "label.judge.threshold" not in result.stdout


def test_kappa_has_an_interval_by_prompts() -> None:
    """40 pairs of one answer a prompt: the same as drawing pairs; each prompt's four pairs alike: twice as wide."""

    def rows(prompts: int, pairs: int) -> list[tuple[judge_check.AnsweredPair, Judgement]]:
        found = []
        for prompt in range(prompts):
            a, b = (
                Response(
                    response_id=f"p{prompt}/{name}",
                    prompt_id=f"p{prompt}",
                    prompt_token_ids=[],
                    token_ids=[],
                    text=name,
                    finish_reason="stop",
                )
                for name in "ab"
            )
            person, judge = ("a", "b")[prompt % 2], ("a", "a", "b", "b", "b", "b", "a", "b")[prompt % 8]
            comparison = Comparison(f"p{prompt}", "?", a, b)
            answered = judge_check.AnsweredPair(1, "selected", comparison, person)
            found += [(answered, Judgement(f"p{prompt}", judge, judge, {}))] * pairs  # type: ignore[arg-type]
        return found

    single, alike = judge_check._figures(rows(160, 1), 0), judge_check._figures(rows(40, 4), 0)
    kappa = cohen_kappa(
        *(list(side) for side in zip(*[("ab"[n % 2], "aabbbbab"[n % 8]) for n in range(160)], strict=True))
    )
    assert single["kappa"] == pytest.approx(kappa)
    assert single["kappa"] == pytest.approx(alike["kappa"])
    widths = [found["kappa_interval"][1] - found["kappa_interval"][0] for found in (single, alike)]
    assert 1.7 < widths[1] / widths[0] < 2.3
    assert widths[0] == pytest.approx(4 * math.sqrt((1 - kappa**2) / 160), rel=0.15)
    assert judge_check._figures(rows(20, 1), 0)["kappa_interval"] is None


def test_a_dry_run_counts_and_calls_nobody(many_selected: Path) -> None:
    before = snapshot(many_selected)
    words = (*on(many_selected, "label"), "--oracle", "judge:m", "--dry-run")
    with judge_server() as server:
        given = settings(server, max_tokens=100, price_input=2, price_output=8, max_calls=40)
        found = json.loads(done(*words, *given, "--json").stdout)
        said = done(*words, *given)
        assert server.calls == 0
        assert snapshot(many_selected) == before
        assert (found["pairs"], found["calls"], found["completion_tokens"]) == (PAIRS, 2 * PAIRS, 4800)
        assert 150 * 48 < found["prompt_tokens"] < 600 * 48
        assert found["price"] == pytest.approx((2 * found["prompt_tokens"] + 8 * 4800) / 1e6)
        assert "48 calls about 24 pairs" in said.stdout
        assert "label.judge.max_calls is 40" in said.stderr
        refused(5, *on(many_selected, "label"), "--oracle", "judge:m", *given)
        rest = json.loads(done(*words, *settings(server), "--json", "--set", "label.judge.max_calls=null").stdout)
    assert (rest["pairs"], rest["calls"], rest["spent"]) == (4, 8, 40)
    assert "price" in rest
    assert json.loads(done(*words, *settings(None), "--force", "--json").stdout)["calls"] == 8
    assert "8 calls about 24 pairs, each in both orders (40 replies are there)" in done(*words, "--force").stdout
    assert json.loads(done(*words, "--force", "--ask-again", "--json").stdout)["calls"] == 2 * PAIRS


def test_a_dry_run_without_prices_names_none(many_selected: Path) -> None:
    with judge_server() as server:
        said = done(*on(many_selected, "label"), "--oracle", "judge:m", "--dry-run", *settings(server)).stdout
    assert "price" not in said


def test_a_dry_run_of_what_costs_nothing_is_refused(many_selected: Path) -> None:
    assert "label.oracle is `human`" in refused(2, *on(many_selected, "label"), "--oracle", "human", "--dry-run")


def test_a_dry_run_needs_selected_pairs_and_the_judge_that_began(many_selected: Path) -> None:
    with judge_server() as server:
        refused(5, *on(many_selected, "label"), "--oracle", "judge:m", *settings(server, max_calls=2))
        refused(3, *on(many_selected, "label"), "--oracle", "judge:n", "--dry-run")
    shutil.rmtree(many_selected / "iter-001" / "label")
    shutil.rmtree(many_selected / "iter-001" / "select")
    refused(4, *on(many_selected, "label"), "--oracle", "judge:m", "--dry-run")


def test_a_dry_run_of_a_check(answered: Path) -> None:
    with judge_server() as server:
        found = json.loads(done(*checking(answered, server, "--pairs", 6, "--dry-run", "--json")).stdout)
    assert (found["pairs"], found["calls"], server.calls) == (6, 12, 0)
