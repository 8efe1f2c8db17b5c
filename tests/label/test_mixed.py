"""A judge answers first, and people what it is unsure about: the oracle `mixed`, through the command line."""

import json
from pathlib import Path

import pytest
from command_line import activedpo, done, manifest, on, refused, rows
from judge_server import JudgeServer, Question, Raw, by_text, honest, judge_server, reply, verdict

PAIRS = 8


class Unsure:
    """An honest judge, but for the pairs of which it first hears: about these it says something else in each order."""

    def __init__(self, pairs: int, second: str) -> None:
        self.pairs, self.second = pairs, second
        self.first_texts: dict[frozenset[str], tuple[str, str]] = {}

    def __call__(self, question: Question) -> Raw:
        pair = frozenset(question.texts)
        if pair not in self.first_texts and len(self.first_texts) < self.pairs:
            self.first_texts[pair] = question.texts
        if self.first_texts.get(pair, question.texts) == question.texts:
            return honest(question)
        if self.second == "no verdict":
            return reply("no idea")
        return verdict(question, None if self.second == "tie" else 1 - by_text(question))


def asking(run: Path, server: JudgeServer, *words: object):
    given = (f"label.judge.base_url={server.url}", "label.judge.concurrency=1")
    settings = [word for assignment in given for word in ("--set", assignment)]
    return (*on(run, "label"), "--oracle", "mixed:m", *settings, "--annotator", "ann", *words)


def labels(run: Path) -> list[dict]:
    return [row["label"] for row in rows(run / "iter-001" / "label" / "labels.jsonl") if row["event"] == "label"]


def summary(run: Path) -> dict:
    return manifest(run, 1, "label")["summary"]


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize("second", ["opposite", "tie", "no verdict"])
def test_people_get_what_the_judge_is_unsure_of(few_selected: Path, second: str) -> None:
    with judge_server(Unsure(3, second)) as server:
        result = activedpo(*asking(few_selected, server), typed="1\nt\n")
        assert result.exit_code == 5
        assert "Pair 1 of 3" in result.stdout
        calls = server.calls
        assert activedpo(*asking(few_selected, server), typed="2\n").exit_code == 0
        assert server.calls == calls
    found = labels(few_selected)
    assert len(found) == PAIRS
    people = [row for row in found if row["annotator"] == "ann"]
    assert [row["score_a"] for row in people] == [None] * 3
    assert [row["outcome"] for row in people] == ["chosen", "tie", "chosen"]
    assert {row["pair_id"] for row in people} == {
        row["pair_id"] for row in rows(few_selected / "iter-001/select/selection.jsonl")[:3]
    }
    assert {row["oracle"] for row in found} == {"mixed:m"}
    facts = summary(few_selected)
    assert facts["people"] == {"pairs": 3, "of": PAIRS, "share": 3 / PAIRS}
    assert facts["judge"]["without_verdict"] == (3 if second == "no verdict" else 0)
    assert "people saw 38 % (3 of 8)" in done(*asking(few_selected, server)).stderr
    done("report", few_selected, "--quiet")
    written = json.loads((few_selected / "report" / "report.json").read_text())["runs"][0]["labels"][0]
    assert (written["people"], written["judge"]) == (facts["people"], facts["judge"])
    page = " ".join((few_selected / "report" / "index.html").read_text().split())
    assert "people saw 38 % (3 of 8)" in page
    assert "The judge: both orders agree on" in page


def test_a_lower_threshold_leaves_a_tie_in_one_order_to_the_judge(few_selected: Path) -> None:
    with judge_server(Unsure(3, "tie")) as server:
        done(*asking(few_selected, server, "--set", "label.judge.threshold=0.25"))
        assert "label.judge.threshold" in refused(
            3, *asking(few_selected, server, "--set", "label.judge.threshold=0.5")
        )
    facts = summary(few_selected)
    assert (facts["people"], facts["tie"]) == ({"pairs": 0, "of": PAIRS, "share": 0.0}, 3)
    assert "people saw 0 % (0 of 8)" in done(*on(few_selected, "label")).stderr


def test_orders_that_disagree_go_to_people_at_any_threshold(few_selected: Path) -> None:
    with judge_server(Unsure(2, "opposite")) as server:
        refused(5, *asking(few_selected, server, "--set", "label.judge.threshold=0"), typed="q\n")
    assert len(labels(few_selected)) == PAIRS - 2


def test_a_file_asks_people_about_these_pairs_alone(few_selected: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with judge_server(Unsure(4, "opposite")) as server:
        refused(5, *asking(few_selected, server, "--export", path))
        asked = rows(path)
        assert len(asked) == 4
        path.write_text("".join(json.dumps(row | {"preference": "b"}) + "\n" for row in asked))
        done(*asking(few_selected, server, "--import", path))
        assert server.calls == 2 * PAIRS
    assert summary(few_selected)["people"]["pairs"] == 4
    done(*asking(few_selected, server, "--import", path))


def test_what_people_answered_is_taken_over_by_another_rubric(few_selected: Path, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.txt"
    rubric.write_text("shorter")
    with judge_server(Unsure(3, "opposite")) as server:
        assert activedpo(*asking(few_selected, server), typed="1\n1\n1\n").exit_code == 0
        before = server.calls
        done(*asking(few_selected, server, "--force", "--set", f"label.judge.rubric={rubric}"))
        assert server.calls == before + 2 * (PAIRS - 3), "of what people have answered the judge is not asked"
    assert summary(few_selected)["people"]["pairs"] == 3
    assert {row["taken_from"] for row in labels(few_selected) if row["annotator"]} == {"iter-001/label"}


def test_people_who_answered_alone_are_not_asked_again_beside_a_judge(few_selected: Path, tmp_path: Path) -> None:
    """In either direction; of the judge nothing is taken for people's."""
    path = tmp_path / "pairs.jsonl"
    refused(5, *on(few_selected, "label"), "--oracle", "human", "--export", path)
    answered = rows(path)[:6]
    path.write_text("".join(json.dumps(row | {"preference": "a"}) + "\n" for row in answered))
    refused(5, *on(few_selected, "label"), "--oracle", "human", "--import", path)
    with judge_server() as server:
        said = done(*asking(few_selected, server, "--force")).stderr
        assert "6 of 8 pairs were answered before" in said
        assert server.calls == 2 * (PAIRS - 6)
    assert summary(few_selected)["people"]["pairs"] == 6
    assert {row["oracle"] for row in labels(few_selected)} == {"mixed:m"}
    refused(5, *on(few_selected, "label"), "--oracle", "human", "--force", typed="q\n")
    again = rows(few_selected / "iter-001" / ".label.redo" / "labels.jsonl")
    assert len(again) == 6
    assert {row["label"]["pair_id"] for row in again} == {row["pair_id"] for row in answered}


def test_noise_is_not_for_answers_of_people(few_selected: Path) -> None:
    with judge_server() as server:
        assert "label.noise" in refused(2, *asking(few_selected, server, "--label-noise", 0.1))


def test_a_judge_that_answers_by_position_is_no_help_to_people(many_selected: Path) -> None:
    with judge_server(lambda question: verdict(question, 0)) as server:
        assert "answers by position" in refused(4, *asking(many_selected, server), typed="1\n")
        assert server.calls == 40


def test_after_a_limit_of_calls_people_get_the_rest(few_selected: Path) -> None:
    with judge_server() as server:
        result = activedpo(*asking(few_selected, server, "--set", "label.judge.max_calls=8"), typed="1\n1\n1\n1\n")
    assert "asked no further: label.judge.max_calls is 8" in result.stderr
    assert result.exit_code == 0
    assert summary(few_selected)["people"]["pairs"] == 4


def said_beside(run: Path, asked: list[dict]) -> list[str]:
    """What one person says of pairs that the judge has answered: the same of the first two, otherwise of the rest."""
    judged = {row["pair_id"]: row["preferred_id"] for row in labels(run)}
    agreeing = ["a" if row["response_a_id"] == judged[row["pair_id"]] else "b" for row in asked]
    return [*agreeing[:2], "tie", *("a" if side == "b" else "b" for side in agreeing[3:])]


def test_a_file_stands_beside_what_the_judge_said_of_the_same_pairs(few_selected: Path, tmp_path: Path) -> None:
    """The judge's answer, which has no name, is not that person's; one without a name would take its place."""
    path = tmp_path / "pairs.jsonl"
    with judge_server() as server:
        refused(5, *asking(few_selected, server, "--overlap", 4, "--export", path))
        judged = {row["pair_id"]: row["preferred_id"] for row in labels(few_selected)}
        asked = rows(path)
        assert len(asked) == 4
        path.write_text(
            "".join(
                json.dumps(row | {"preference": word, "annotator": ""}) + "\n"
                for row, word in zip(asked, said_beside(few_selected, asked), strict=True)
            )
        )
        assert "--annotator NAME" in refused(2, *on(few_selected, "label"), "--import", path)
        assert "4 new answers" in done(*asking(few_selected, server, "--import", path)).stderr
        assert "all 4 answers" in done(*asking(few_selected, server, "--import", path)).stderr
    assert [(row["annotator"], row["role"]) for row in labels(few_selected)[PAIRS:]] == [("ann", "overlap")] * 4
    trained = {row["pair_id"]: row["preferred_id"] for row in rows(few_selected / "iter-001/label/outcomes.jsonl")}
    assert trained == judged


def test_a_file_is_read_where_the_judge_has_answered_some_of_it_since(few_selected: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    with judge_server() as server:
        refused(5, *asking(few_selected, server, "--set", "label.judge.max_calls=8", "--export", path))
        asked = rows(path)
        assert len(asked) == 4
        path.write_text("".join(json.dumps(row | {"preference": "tie"}) + "\n" for row in asked))
        said = done(*asking(few_selected, server, "--set", "label.judge.max_calls=12", "--import", path)).stderr
        assert server.calls == 12
    assert "4 new answers" in said
    assert "2 of them by further people" in said
    assert [row["role"] for row in labels(few_selected)[PAIRS - 2 :]] == ["overlap"] * 2 + ["selected"] * 2
    assert summary(few_selected)["people"]["pairs"] == 2


@pytest.mark.usefixtures("blank_figures")
def test_the_report_says_how_far_people_beside_a_judge_agree(few_selected: Path) -> None:
    """On what both answered, which are controls: what the judge answers measures against the judge."""
    ways = ("--control", 2, "--overlap", 2)
    with judge_server() as server:
        assert activedpo(*asking(few_selected, server, *ways), typed="1\n" * 4).exit_code == 5
        assert activedpo(*asking(few_selected, server, "--annotator", "bo"), typed="t\n" * 2).exit_code == 0
    done("report", few_selected, "--quiet")
    (run,) = json.loads((few_selected / "report" / "report.json").read_text())["runs"]
    agreed = run["agreement"]
    assert [(person["annotator"], person["answers"]) for person in agreed["people"]] == [("ann", 4), ("bo", 2)]
    assert (agreed["control"]["pairs"], agreed["control"]["agreed"]["number"], agreed["selected"]) == (2, 0, None)
    assert "Each person who answered" in (few_selected / "report" / "index.html").read_text()


@pytest.mark.usefixtures("blank_figures")
def test_the_report_is_silent_of_people_where_the_judge_answered_all(few_selected: Path) -> None:
    with judge_server() as server:
        done(*asking(few_selected, server))
    done("report", few_selected, "--quiet")
    (run,) = json.loads((few_selected / "report" / "report.json").read_text())["runs"]
    assert run["agreement"] is None
