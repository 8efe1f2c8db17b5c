"""What docs/experiments/instruct makes: scorers learnt from recorded scores, and prompts that neither is measured on."""

import gzip
import itertools
import json
import os
import random
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from activedpo_cli.experiments.folder import ExperimentFolder
from activedpo_cli.experiments.spec import read_spec

ROOT = Path(__file__).parents[2]
INSTRUCT = ROOT / "docs" / "experiments" / "instruct"
DATA = Path(os.environ.get("ACTIVEDPO_DATA", ROOT.parent / "shared" / "data")) / "scored_responses_wide.jsonl.gz"


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setenv("INSTRUCT", str(tmp_path / "made"))
    from docs.experiments import result_table
    from docs.experiments.instruct import prepare

    monkeypatch.setattr(result_table, "RESULTS", tmp_path / "results")
    return prepare


def made_up(path: Path) -> None:
    """Answers that both models like for each `good` in them, and one prompt for each bucket twice over."""
    draw, lines = random.Random(0), []
    for number in range(128):
        responses = []
        for _ in range(4):
            words = draw.choices(["good", "bad", "tea", "sun", "no"], k=draw.randint(5, 9))
            score = words.count("good") - words.count("bad") + draw.gauss(0, 0.1)
            responses.append({"text": " ".join(words), "rm_test": score, "rm_train": score if number % 3 else None})
        prompt = f"What is {number}?" + ("\n\n[removed]" if number == 5 else "x" * 300 if number == 6 else "")
        lines.append({"prompt": prompt, "responses": responses, "bucket": number % 64})
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def test_scorers_learn_what_the_scores_say(
    prepare: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from docs.experiments.instruct import rewards

    monkeypatch.setattr(rewards, "HASHED", 64)  # the vocabulary is small
    made_up(tmp_path / "data" / "scored_responses_wide.jsonl.gz")
    prepare.main(["--rewards-only", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "made")])
    prompts = [json.loads(line) for line in (tmp_path / "made" / "prompts.jsonl").read_text().splitlines()]
    assert len(prompts) == 127, "the long one is left out"
    assert {row["prompt"] for row in prompts if row["split"] == "eval"} == {
        f"What is {number}?" for number in range(128) if number % 64 >= 54
    }
    assert "What is 5?" in {row["prompt"] for row in prompts}
    for scorer in (rewards.answer, rewards.second):
        good, mixed, bad = scorer(["Which?"] * 3, ["good good good tea", "good tea bad sun", "bad bad bad tea"])
        assert good > mixed > bad
    (table,) = json.loads((tmp_path / "results" / "instruct-rewards" / "tables.json").read_text())
    found = {row[0]: row for row in table["rows"]}
    assert float(found["`answer`"][3].removesuffix(" %")) > 85
    before = capsys.readouterr().out
    prepare.main(["--rewards-only", "--data", str(tmp_path / "data"), "--output", str(tmp_path / "made")])
    assert before
    assert capsys.readouterr().out == "", "what is there is left as it is"


def test_pairs_are_counted_as_by_hand(prepare: ModuleType) -> None:
    draw = np.random.default_rng(0)
    group, given = draw.integers(0, 6, 40), draw.integers(0, 4, 40).astype(float)
    truth = np.where(draw.random(40) < 0.2, np.nan, draw.integers(0, 4, 40))
    right, number = 0.0, 0
    for a, b in itertools.combinations(range(40), 2):
        if group[a] == group[b] and not np.isnan(truth[[a, b]]).any() and truth[a] != truth[b]:
            number += 1
            right += 0.5 if given[a] == given[b] else float((given[a] > given[b]) == (truth[a] > truth[b]))
    assert prepare.pair_accuracy(given, truth, group) == (pytest.approx(right / number), number)


def test_ridge_is_that_of_differences_within_prompts(prepare: ModuleType) -> None:
    """With two answers to each prompt, centring is the same as a regression on halved differences."""
    draw = np.random.default_rng(1)
    seen, scores, group = draw.normal(size=(60, 5)), draw.normal(size=60), np.repeat(np.arange(30), 2)
    x, y = seen[0::2] - seen[1::2], scores[0::2] - scores[1::2]
    expected = np.linalg.lstsq(
        np.vstack([x / np.sqrt(2), np.sqrt(7.0) * np.eye(5)]), np.concatenate([y / np.sqrt(2), np.zeros(5)]), rcond=None
    )[0]
    np.testing.assert_allclose(prepare.fit(seen, scores, group, 7.0), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["instruct-methods", "instruct-methods-gpu", "instruct-pool"])
def test_every_arm_is_one_that_a_run_can_have(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from activedpo_cli.experiments.conduct import _config
    from activedpo_cli.select.method_settings import method_settings

    for variable in ("INSTRUCT", "ACTIVEDPO_DATA"):
        monkeypatch.setenv(variable, str(tmp_path))
    spec = read_spec(str(INSTRUCT / f"{name}.yaml"))
    jobs = ExperimentFolder(tmp_path, spec).jobs()
    assert len(jobs) == len(spec.arms) * len(spec.seeds)
    for job in jobs[: len(spec.arms)]:
        method_settings(_config(spec.preset, job.settings))
    assert spec.ceiling in spec.arms


def test_the_real_scores_are_learnt(prepare: ModuleType, tmp_path: Path) -> None:
    if not DATA.is_file():
        pytest.skip(f"{DATA} is not there: real prompts with the scores of two reward models")
    prompts, answers = prepare.read(DATA)
    assert sum(row["bucket"] >= prepare.FIRST_HELD_OUT for row in prompts) > 500
    assert "docs.experiments.instruct.rewards" in sys.modules
    few = answers.of(answers.group < 150)
    shares = prepare.pair_accuracy(few.scores["rm_test"], few.scores["rm_train"], few.group)
    assert 0.75 < shares[0] < 0.87, "the two models agree on about 81 % of the pairs"
