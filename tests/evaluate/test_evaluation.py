"""An evaluation compares like with like: samples with samples of equal settings, rewards with rewards of one scorer."""

import hashlib
import json
import math
import shutil
import sys
from pathlib import Path
from statistics import fmean

import pytest
from command_line import RULE, done, make_partial, manifest, on, outputs, refused, rows, snapshot, without
from small_models import CHAT_TEMPLATE, save_small_model
from small_runs import SMALL, small_run

JUDGE = """
from pathlib import Path
def score(prompts, responses):
    with open({calls!r}, "a") as stream:
        stream.write(f"{{len(responses)}}\\n")
    return [float({value}) for text in responses]
def other(prompts, responses):
    return [-float(len(text)) for text in responses]
"""
Z_SQUARED = 3.8414588  # of 95 %


@pytest.fixture
def unmeasured(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two trained iterations that nobody evaluated; this process stands in a folder where a judge can lie."""
    for folder in ("iter-001/evaluate", "iter-002/evaluate", "reference/evaluate"):
        shutil.rmtree(finished / folder)
    monkeypatch.chdir(tmp_path)
    return finished


@pytest.fixture
def measured_once(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with the first iteration and the initial model evaluated."""
    shutil.rmtree(finished / "iter-002/evaluate")
    monkeypatch.chdir(tmp_path)
    return finished


def write_judge(value: str) -> Path:
    calls = Path("calls.txt").absolute()
    calls.unlink(missing_ok=True)
    Path("judge.py").write_text(JUDGE.format(calls=str(calls), value=value))
    return calls


def texts(folder: Path) -> dict[str, str]:
    found = [row for path in sorted(folder.glob("responses-*.jsonl")) for row in rows(path)]
    return {row["response_id"]: row["text"] for row in found}


def mean_over_prompts(values: dict[str, float]) -> float:
    groups: dict[str, list[float]] = {}
    for name, value in values.items():
        groups.setdefault(name.partition("/")[0], []).append(value)
    return fmean(fmean(group) for group in groups.values())


def metrics_of(run: Path, iteration: int) -> dict:
    folder = run / (f"iter-{iteration:03d}" if iteration else "reference") / "evaluate"
    return json.loads((folder / "metrics.json").read_bytes())


def without_evaluations(files: dict) -> dict:
    return without(files, "iter-001/evaluate", "iter-002/evaluate", "reference/evaluate")


@pytest.mark.parametrize("change", ["content", "function", "nothing"])
def test_initial_rewards_are_by_the_scorer_of_the_iteration(unmeasured: Path, change: str) -> None:
    run = unmeasured
    write_judge("len(text)")
    done(*on(run, "evaluate", iteration=1), "--scorer", "python:judge:score")
    samples = without(snapshot(run / "reference" / "evaluate"), "metrics", "rewards")
    if change == "content":
        write_judge("100 - 3 * len(text)")
    scorer = "python:judge:other" if change == "function" else "python:judge:score"
    result = done(*on(run, "evaluate", iteration=2), "--scorer", scorer)

    def reward(text: str) -> float:
        return {"content": 100 - 3 * len(text), "function": -len(text), "nothing": len(text)}[change]

    ours, before = texts(run / "iter-002" / "evaluate"), texts(run / "reference" / "evaluate")
    new = {name: reward(text) for name, text in ours.items()}
    old = {name: reward(text) for name, text in before.items()}
    wins = {
        name: 0.5 + 0.5 * math.copysign(value != rival, value - rival)
        for name, value in new.items()
        for rival in [old[name.replace("/i002/", "/i000/")]]
    }
    assert len(set(wins.values())) > 1, "else nothing is compared"
    metrics = metrics_of(run, 2)
    assert metrics["reward_mean"] == pytest.approx(mean_over_prompts(new))
    assert metrics["reward_mean_initial"] == pytest.approx(mean_over_prompts(old))
    assert metrics["win_rate"] == pytest.approx(mean_over_prompts(wins))
    assert metrics_of(run, 0)["reward_mean"] == pytest.approx(mean_over_prompts(old))
    assert metrics_of(run, 0)["scorer"] == scorer
    assert ("iteration 1 was scored by `python:judge:score`" in result.stderr) == (change != "nothing")
    assert without(snapshot(run / "reference" / "evaluate"), "metrics", "rewards") == samples


def test_a_scorer_rates_the_initial_responses_once(unmeasured: Path) -> None:
    calls = write_judge("len(text)")
    scored: list[int] = []
    for iteration in (1, 2):
        done(*on(unmeasured, "evaluate", iteration=iteration), "--scorer", "python:judge:score")
        scored.append(sum(map(int, calls.read_text().split())))
    assert scored == [16, 24], "4 prompts with 2 responses each: the initial ones, and those of two iterations"
    (kept,) = (unmeasured / "reference" / "evaluate").glob("rewards-*.jsonl")
    for row in rows(kept):
        assert row["scorer"] == "python:judge:score"
        assert row["reward"] == len(texts(unmeasured / "reference" / "evaluate")[row["response_id"]])


def test_force_scores_the_initial_responses_again(unmeasured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the scorer's file imports has no digest."""
    Path("judge.py").write_text("from worth import score\n")
    Path("worth.py").write_text("def score(prompts, responses):\n    return [len(text) for text in responses]\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    done(*on(unmeasured, "evaluate", iteration=1), "--scorer", "python:judge:score")
    before = metrics_of(unmeasured, 1)
    Path("worth.py").write_text("def score(prompts, responses):\n    return [1000 + len(text) for text in responses]\n")
    sys.modules.pop("worth")
    done(*on(unmeasured, "evaluate", iteration=1), "--force")
    after = metrics_of(unmeasured, 1)
    sys.modules.pop("worth")
    for name in ("reward_mean", "reward_mean_initial"):
        assert after[name] == pytest.approx(1000 + before[name])
    assert after["win_rate"] == before["win_rate"]


def test_a_scorer_that_fails_is_replaced_without_sampling_again(unmeasured: Path) -> None:
    Path("judge.py").write_text("def score(prompts, responses):\n    raise RuntimeError('out of credit')\n")
    assert "out of credit" in refused(1, *on(unmeasured, "evaluate", iteration=2), "--scorer", "python:judge:score")
    assert not (unmeasured / "iter-002" / "evaluate").exists()
    samples = without(snapshot(unmeasured / "reference" / "evaluate"), "metrics", "rewards")
    assert "responses-00001.jsonl" in samples
    done(*on(unmeasured, "status"))
    done(*on(unmeasured, "evaluate", iteration=2), "--scorer", RULE)
    assert without(snapshot(unmeasured / "reference" / "evaluate"), "metrics", "rewards") == samples


def test_the_initial_evaluation_is_named_and_can_be_deleted(finished: Path) -> None:
    folder = finished / "reference" / "evaluate"
    made = {name: digest for name, (digest, _) in snapshot(folder).items() if name != "manifest.json"}
    record = json.loads((folder / "manifest.json").read_bytes())
    assert set(record["outputs"]) == {"responses-00000.jsonl", "responses-00001.jsonl"}
    named = {name: facts["sha256"] for name, facts in record["outputs"].items()}
    canonical = json.dumps(named, sort_keys=True, separators=(",", ":")).encode()
    assert metrics_of(finished, 2)["initial_evaluation"] == f"sha256:{hashlib.sha256(canonical).hexdigest()}"

    shutil.rmtree(folder)
    for iteration in (1, 2):
        assert "up to date" in done(*on(finished, "evaluate", iteration=iteration)).stderr
    expected = outputs(finished, 2, "evaluate")
    done(*on(finished, "evaluate", iteration=2), "--force")
    assert outputs(finished, 2, "evaluate") == expected
    assert {name: digest for name, (digest, _) in snapshot(folder).items() if name != "manifest.json"} == made


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "train.beta=0.3"),
        ("--scorer", "python:judge:score"),
        ("--second-scorer", "python:judge:other"),
        ("--preferences", "pairs.jsonl"),
        ("--set", "label.max_length=64"),
        ("--set", "label.unit_size=3"),
        ("--set", "label.input_format=pair"),
        ("--set", "generate.recorded_eos=true"),
    ],
)
def test_what_does_not_shape_the_samples_does_not_lock_them(measured_once: Path, words: tuple[str, str]) -> None:
    write_judge("len(text)")
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "Never seen", "chosen": "a", "rejected": "b"}) + "\n")
    before = without(snapshot(measured_once / "reference" / "evaluate"), "metrics", "rewards")
    done(*on(measured_once, "evaluate", iteration=2), *words)
    assert without(snapshot(measured_once / "reference" / "evaluate"), "metrics", "rewards") == before


def test_training_with_another_beta_does_not_lock_the_evaluation(finished: Path) -> None:
    done(*on(finished, "train", iteration=2), "--force", "--beta", 0.3)
    done(*on(finished, "evaluate", iteration=2), "--force")
    assert manifest(finished, 2, "evaluate")["settings"]["train.beta"] == 0.3


@pytest.mark.parametrize(
    ("words", "difference"),
    [
        (("--num-responses", 3), "evaluate.num_responses  2 → 3"),
        (("--temperature", 0.5), "evaluate.temperature  1.0 → 0.5"),
        (("--top-k", 5), "evaluate.top_k  0 → 5"),
        (("--top-p", 0.5), "evaluate.top_p  1.0 → 0.5"),
        (("--max-new-tokens", 5), "evaluate.max_new_tokens  6 → 5"),
        (("--unit-size", 4), "evaluate.unit_size  2 → 4"),
        (("--set", "generate.stop_token_ids=[1]"), "generate.stop_token_ids  "),
    ],
)
def test_what_shapes_the_samples_is_that_of_the_first_evaluation(finished: Path, words: tuple, difference: str) -> None:
    shutil.rmtree(finished / "iter-002" / "evaluate")
    before = snapshot(finished)
    message = refused(3, *on(finished, "evaluate", iteration=2), *words)
    assert difference in message
    assert f"delete `{finished / 'reference' / 'evaluate'}`" in message
    assert snapshot(finished) == before


def test_a_resumed_evaluation_does_not_compare_with_other_samples(finished: Path) -> None:
    """Begun under the old settings, while the initial responses have been sampled anew under others."""
    make_partial(finished, 2, "evaluate", "responses-00001.jsonl", "samples.jsonl", "metrics.json")
    shutil.rmtree(finished / "reference" / "evaluate")
    done(*on(finished, "evaluate", iteration=1), "--force", "--num-responses", 1)
    message = refused(3, *on(finished, "evaluate", iteration=2))
    assert "evaluate.num_responses  1 → 2" in message


def test_the_record_names_all_that_the_measurement_depends_on(finished_original: Path) -> None:
    settings = manifest(finished_original, 2, "evaluate")["settings"]
    assert settings["generate.backend"] == "transformers"
    assert settings["generate.recorded_eos"] is False
    assert settings["label.unit_size"] == SMALL["label.unit_size"]
    assert settings["evaluate.max_new_tokens"] == SMALL["generate.max_new_tokens"]
    initial = json.loads((finished_original / "reference" / "evaluate" / "manifest.json").read_bytes())["settings"]
    assert initial == {key: settings[key] for key in initial}
    assert not [key for key in initial if "score" in key or key.startswith(("label.", "train."))]


def test_a_mistyped_score_field_is_refused_before_sampling(tmp_path: Path, small_model: Path) -> None:
    responses = [
        {"prompt": f"Pool question {n}", "responses": [{"text": f"{n} {k}", "rm_a": k, "rm_b": -k} for k in range(3)]}
        for n in range(9)
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in responses))
    run = small_run(tmp_path / "run", small_model, path, oracle="recorded", label__score_field="rm_a")
    done(*on(run, "generate"), "--responses", path, "--num-prompts", 5)
    for stage in ("featurize", "select", "label", "train"):
        done(*on(run, stage))
    before = snapshot(run)
    message = refused(4, *on(run, "evaluate"), "--score-field", "rm_bb")
    assert "evaluate.score_field is `rm_bb`" in message
    assert "did you mean `rm_b`" in message
    assert "rm_a, rm_b" in message
    assert snapshot(run) == before
    done(*on(run, "evaluate"), *message.partition("hint: ")[2].split())
    found = metrics_of(run, 1)
    assert found["preference_pairs"] == 4 * 3
    low, high = wilson(found["preference_accuracy"], 4)
    assert found["preference_accuracy_ci_low"] == pytest.approx(low, abs=1e-6)
    assert found["preference_accuracy_ci_high"] == pytest.approx(high, abs=1e-6)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The ends p at which |share − p| is z standard errors √(p(1 − p)/count): the roots of a quadratic."""
    a, b, c = count + Z_SQUARED, -(2 * count * share + Z_SQUARED), count * share**2
    root = math.sqrt(b * b - 4 * a * c)
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def test_the_accuracy_keeps_an_interval_where_all_preferences_agree(measured_once: Path) -> None:
    """One pair, whichever way it falls: z²/(1 + z²) = 0.793451 remains open."""
    pair = {"prompt": "Never seen", "chosen": "yes", "rejected": "no"}
    Path("pairs.jsonl").write_text(json.dumps(pair) + "\n")
    done(*on(measured_once, "evaluate", iteration=2), "--preferences", "pairs.jsonl")
    found = metrics_of(measured_once, 2)
    ends = (found["preference_accuracy_ci_low"], found["preference_accuracy_ci_high"])
    assert found["preference_accuracy"] in (0.0, 1.0)
    assert ends == pytest.approx((0.206549, 1.0) if found["preference_accuracy"] else (0.0, 0.793451), abs=1e-6)
    path = measured_once / "iter-002" / "evaluate" / "manifest.json"
    record = json.loads(path.read_bytes())
    assert record["inputs"].pop("preferences are read by") == "rules 6"
    path.write_text(json.dumps(record, indent=2) + "\n")
    assert "up to date" in done(*on(measured_once, "evaluate", iteration=2)).stderr, "as an earlier version measured it"
    Path("pairs.jsonl").unlink()
    assert "up to date" in done(*on(measured_once, "evaluate", iteration=2)).stderr, "what was measured on it stands"
    assert "stale" not in done(*on(measured_once, "status")).stdout
    assert "there is no file pairs.jsonl" in refused(4, *on(measured_once, "evaluate", iteration=2), "--force")


def test_many_preferences_about_one_prompt_count_as_one_prompt(measured_once: Path) -> None:
    """The interval is over prompts: fifty answers about one prompt tell no more of other prompts than one does."""
    pairs = [{"prompt": "Never seen", "chosen": f"yes {n}", "rejected": f"no {n * n}"} for n in range(50)]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    done(*on(measured_once, "evaluate", iteration=2), "--preferences", "pairs.jsonl")
    found = metrics_of(measured_once, 2)
    assert found["preference_pairs"] == 50
    accuracy = found["preference_accuracy"]
    ends = (found["preference_accuracy_ci_low"], found["preference_accuracy_ci_high"])
    assert ends == pytest.approx(wilson(accuracy, 1), abs=1e-6)
    assert wilson(0.7, 1) == pytest.approx((0.103, 0.979), abs=1e-3)


def test_prompts_count_alike_however_many_preferences_they_have(measured_once: Path) -> None:
    """The accuracy of two files together is the mean over their prompts, not over their rows."""
    often = [{"prompt": "Asked often", "chosen": f"yes {n}", "rejected": f"no {n * n}"} for n in range(9)]
    once = [{"prompt": "Asked once", "chosen": "certainly", "rejected": "no"}]
    alone = []
    for asked in (often, once, often + once):
        Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in asked))
        done(*on(measured_once, "evaluate", iteration=2), "--preferences", "pairs.jsonl", "--force")
        alone.append(metrics_of(measured_once, 2))
    assert alone[2]["preference_accuracy"] == pytest.approx(fmean(row["preference_accuracy"] for row in alone[:2]))
    ends = (alone[2]["preference_accuracy_ci_low"], alone[2]["preference_accuracy_ci_high"])
    assert ends == pytest.approx(wilson(alone[2]["preference_accuracy"], 2), abs=1e-6)


def test_rows_that_measure_nothing_are_left_out_and_counted(measured_once: Path) -> None:
    """An empty response has reward 0 whatever the policy is, so it would measure the other response alone."""
    pair = {"prompt": "Never seen", "chosen": "yes", "rejected": "no"}
    pool = {"prompt": rows(measured_once / "prompts.jsonl")[0]["prompt"], "chosen": "yes", "rejected": "no"}
    held = next(row["prompt"] for row in rows(measured_once / "prompts.jsonl") if row["split"] == "train")
    others = [pair | {"chosen": ""}, pair | {"rejected": "\n"}, pair | {"rejected": "yes"}, pool | {"prompt": held}]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [pair, *others]))
    said = done(*on(measured_once, "evaluate", iteration=2), "--preferences", "pairs.jsonl").stderr
    found = metrics_of(measured_once, 2)
    assert found["preference_pairs"] == 1
    counts = found["preference_rows_left_out"]
    assert {why: number for why, number in counts.items() if number} == {
        "empty_response": 2,
        "equal_responses": 1,
        "in_pool": 1,
    }
    assert "2 with an empty response (lines 2, 3)" in said


def test_a_prompt_is_what_the_model_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spaces that the template trims and a message instead of a text make no other prompt."""
    monkeypatch.chdir(tmp_path)
    model = save_small_model(tmp_path / "model", tokenizer="bytes-chat")
    settings = model / "tokenizer_config.json"
    template = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
    (model / "chat_template.jinja").write_text(template)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": template}))
    asked = {"train": [f"Question {n}" for n in range(8)], "eval": ["Held out", "Held out ", "Other"]}
    given = [{"prompt": text, "part": part} for part, texts in asked.items() for text in texts]
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    run = small_run(tmp_path / "run", model, Path("prompts.jsonl"), eval_prompts=3, prompts__split_column="part")
    for stage in ("generate", "featurize", "select", "label", "train"):
        done(*on(run, stage))
    in_pool = next(row["prompt"] for row in rows(run / "prompts.jsonl") if row["split"] == "train")
    spellings = ["Seen once", "Never", "Never ", "\nNever", [{"role": "user", "content": "Never"}], in_pool + "  "]
    pairs = [{"prompt": prompt, "chosen": f"yes {n}", "rejected": f"no {n * n}"} for n, prompt in enumerate(spellings)]
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    said = done(*on(run, "evaluate"), "--preferences", "pairs.jsonl").stderr
    found = metrics_of(run, 1)
    assert found["preference_pairs"] == 5
    assert "1 about prompts of the pool (line 6)" in said
    ends = (found["preference_accuracy_ci_low"], found["preference_accuracy_ci_high"])
    assert ends == pytest.approx(wilson(found["preference_accuracy"], 2), abs=1e-6)
    assert "the model reads 1 held-out prompt as it reads others: `p000009` as `p000008`" in " ".join(said.split())
    assert (found["n"], found["eval_prompts_repeated"]) == (2, 1)
    ends = (found["win_rate_ci_low"], found["win_rate_ci_high"])
    assert ends == pytest.approx(wilson(found["win_rate"], 2), abs=1e-6)
    assert done(*on(run, "verify"))
    shutil.rmtree(run / "reference" / "evaluate")
    with monkeypatch.context() as earlier:
        earlier.setattr("activedpo_cli.evaluate.step.repeated_prompts", lambda prompts: {})
        done(*on(run, "evaluate"), "--force")
    said = done(*on(run, "evaluate"), "--force").stderr
    assert "they count twice in `n` and in the intervals" in " ".join(said.split()), "as an earlier version sampled"
    assert metrics_of(run, 1)["n"] == 3


def test_a_file_without_preferences_is_refused_before_sampling(unmeasured: Path) -> None:
    Path("pairs.jsonl").write_text(json.dumps({"prompt": "P", "response": "r"}) + "\n")
    before = snapshot(unmeasured)
    assert "no preferences" in refused(4, *on(unmeasured, "evaluate", iteration=2), "--preferences", "pairs.jsonl")
    assert snapshot(unmeasured) == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--max-new-tokens", 250), "evaluate.max_new_tokens is 250,"),
        (("--set", "generate.max_new_tokens=250"), "evaluate.max_new_tokens is 250 (that of generate),"),
    ],
)
def test_prompts_that_are_all_too_long_are_refused_before_work(unmeasured: Path, words: tuple, named: str) -> None:
    before = snapshot(unmeasured)
    message = refused(4, *on(unmeasured, "evaluate", iteration=2), *words)
    assert named in message
    assert snapshot(unmeasured) == before
    hint = message.partition("hint: ")[2].split()
    done(*on(unmeasured, "evaluate", iteration=2), *hint)
    assert metrics_of(unmeasured, 2)["eval_prompts_too_long"] == 0


def test_people_may_take_over_from_a_scorer(finished: Path) -> None:
    before = metrics_of(finished, 0)
    done(*on(finished, "label", iteration=2), "--force", "--oracle", "human", typed="1\n2\n1\n2\n")
    done(*on(finished, "train", iteration=2), "--force")
    result = done(*on(finished, "evaluate", iteration=2), "--force")
    assert f"--scorer {RULE}" in result.stderr
    found = metrics_of(finished, 2)
    assert found["scorer"] is None
    assert {value for key, value in found.items() if key.startswith(("reward_", "win_rate", "second_"))} == {None}
    assert found["kl_to_reference"] is not None
    assert metrics_of(finished, 0) == before
    table = json.loads(done(*on(finished, "status"), "--json").stdout)["evaluations"]
    assert [row["reward_mean"] is None for row in table] == [False, False, True]


BACKEND = """
from activedpo_cli.generate.backends.transformers_backend import sample_unit
"""


def test_samples_of_another_backend_give_no_kl(unmeasured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They need not come from the policy that is loaded here; this one's do, which is beside the point."""
    from activedpo_cli.base import discovery

    plugin = Path("plugin").absolute()
    (plugin / "far_away-1.0.dist-info").mkdir(parents=True)
    (plugin / "far_away-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: far-away\nVersion: 1.0\n")
    (plugin / "far_away-1.0.dist-info" / "entry_points.txt").write_text(
        "[activedpo.generation]\nfar_away = far_away_backend\n"
    )
    (plugin / "far_away_backend.py").write_text(BACKEND)
    monkeypatch.syspath_prepend(str(plugin))
    discovery._entry_points.cache_clear()
    try:
        done(*on(unmeasured, "evaluate", iteration=2), "--set", "generate.backend=far-away")
        assert manifest(unmeasured, 2, "evaluate")["settings"]["generate.backend"] == "far-away"
        message = refused(3, *on(unmeasured, "evaluate", iteration=1), "--set", "generate.backend=transformers")
    finally:
        sys.modules.pop("far_away_backend", None)
        monkeypatch.undo()
        discovery._entry_points.cache_clear()
    found = metrics_of(unmeasured, 2)
    assert [found[key] for key in ("kl_to_reference", "kl_ci_low", "kl_ci_high")] == [None] * 3
    assert found["reward_mean"] is not None
    assert "generate.backend  far-away → transformers" in message
