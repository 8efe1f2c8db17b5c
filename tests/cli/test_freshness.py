"""Nothing stale is used without saying so, no given flag is dropped, and a forced redo is never forgotten."""

import json
import shutil
from pathlib import Path

from command_line import STAGES, all_outputs, done, manifest, on, outputs, refused, rows, snapshot
from small_runs import small_run


def test_responses_made_again_are_not_trained_on_with_old_labels(finished: Path) -> None:
    shutil.rmtree(finished / "iter-002" / "train")
    shutil.rmtree(finished / "iter-002" / "evaluate")
    done(*on(finished, "generate", iteration=2), "--force", "--temperature", 0.5)
    said = refused(4, *on(finished, "train", iteration=2))
    assert "`featurize` of iteration 2 is stale" in said or "`select` of iteration 2 is stale" in said, said
    assert not (finished / "iter-002" / "train").exists()


def test_following_the_hints_makes_every_stale_stage_again(finished: Path) -> None:
    done(*on(finished, "generate", iteration=2), "--force", "--temperature", 0.5)
    for _ in range(12):
        found = json.loads(done(*on(finished, "status"), "--json").stdout)
        if "--iteration 3" in found["next"]:
            break
        done(*found["next"].split()[1:])
    states = {s["state"] for row in found["iterations"] for s in row["stages"].values()}
    assert states == {"complete"}
    texts = {
        row["response_id"]: row["text"]
        for path in (finished / "iter-002" / "generate").glob("responses-*.jsonl")
        for row in rows(path)
    }
    for row in rows(finished / "iter-002" / "label" / "preferences.jsonl"):
        assert texts[row["chosen_id"]] == row["chosen"]


def test_a_stage_deleted_to_save_space_does_not_block_what_comes_later(finished: Path) -> None:
    shutil.rmtree(finished / "iter-001" / "featurize")
    done(*on(finished, "generate", iteration=3))


def test_label_options_on_a_closed_stage_are_refused(finished: Path, tmp_path: Path) -> None:
    before = snapshot(finished)
    assert "--import" in refused(3, *on(finished, "label", iteration=2), "--import", tmp_path / "no.csv")
    assert "--export" in refused(3, *on(finished, "label", iteration=2), "--export", tmp_path / "new.csv")
    assert not (tmp_path / "new.csv").exists()
    assert snapshot(finished) == before


def test_a_begun_redo_is_named_and_goes_on(finished: Path) -> None:
    again = (*on(finished, "label", iteration=2), "--oracle", "human", "--force")
    said = refused(5, *again, typed="1\nq\n")
    assert "--force" in said
    assert "--force" in done(*on(finished, "label", iteration=2)).stderr
    notes = json.loads(done(*on(finished, "status"), "--json").stdout)["iterations"][1]["stages"]["label"]["notes"]
    assert any("--force" in note for note in notes)
    done(*again, typed="2\n1\n2\n")
    log = rows(finished / "iter-002" / "label" / "labels.jsonl")
    assert len(log) == 4
    assert {event["label"]["oracle"] for event in log} == {"human"}


def test_a_redo_killed_just_before_the_swap_keeps_its_answers(finished: Path) -> None:
    again = (*on(finished, "label", iteration=2), "--oracle", "human", "--force")
    done(*again, typed="2\n1\n2\n1\n")
    new = outputs(finished, 2, "label")
    old = next((finished / ".stale").glob("iter-002-label-*"))
    (finished / "iter-002" / "label").rename(finished / "iter-002" / ".label.redo")
    old.rename(finished / "iter-002" / "label")
    done(*again, typed="")
    assert outputs(finished, 2, "label") == new
    assert not (finished / "iter-002" / ".label.redo").exists()


def test_a_flag_of_another_stage_reaches_config_also_from_a_finished_stage(finished: Path) -> None:
    done(*on(finished, "select", iteration=2), "--set", "train.beta=0.7")
    assert "beta: 0.7" in (finished / "config.yaml").read_text()
    before = snapshot(finished)
    done(*on(finished, "select", iteration=2), "--set", "train.beta=0.7")
    assert snapshot(finished) == before


def test_a_misspelled_method_section_is_refused(finished: Path) -> None:
    said = refused(2, *on(finished, "select", iteration=2), "--set", "select.methods.activdpo.ridge=30")
    assert "did you mean `activedpo`" in said


def test_a_whole_section_is_not_a_setting(finished: Path) -> None:
    assert "section" in refused(2, *on(finished, "train", iteration=2), "--set", "train={beta: 0.3}")


def test_the_same_columns_in_another_order_are_the_same(new_run: Path) -> None:
    done(*on(new_run, "generate"))
    done(*on(new_run, "featurize"), "--compute", "logps,features")
    assert "up to date" in done(*on(new_run, "featurize"), "--compute", "features,logps").stderr


def test_a_value_that_is_no_yaml_is_taken_as_text(finished: Path) -> None:
    said = refused(2, *on(finished, "generate", iteration=3), "--set", "generate.temperature=2024-13-45")
    assert "generate.temperature" in said


def test_settings_fixed_for_a_run_may_not_be_edited(finished: Path) -> None:
    text = (finished / "config.yaml").read_text()
    assert "seed: 0" in text
    (finished / "config.yaml").write_text(text.replace("seed: 0", "seed: 5", 1))
    assert "seed  0 → 5" in refused(3, *on(finished, "generate", iteration=3))
    assert not (finished / "iter-003").exists()


def test_a_finished_stage_is_up_to_date_also_where_its_scorer_is_not_found(
    tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "scorer_at_home.py").write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    monkeypatch.chdir(home)
    run = small_run(tmp_path / "run", small_model, prompts_file, oracle="python:scorer_at_home:score")
    for stage in STAGES[:4]:
        done(*on(run, stage))
    monkeypatch.chdir(tmp_path)
    assert "can't be told from here" in done(*on(run, "label")).stderr
    done(*on(run, "train"))
    (home / "scorer_at_home.py").write_text("def score(prompts, responses):\n    return [0.0 for r in responses]\n")
    monkeypatch.chdir(home)
    assert "oracle" in refused(3, *on(run, "label"))


def test_a_newer_version_of_a_stage_does_not_continue_partial_work(finished: Path) -> None:
    from command_line import make_partial

    folder = make_partial(finished, 2, "generate", "responses-00001.jsonl")
    record = json.loads((folder / "started.json").read_text())
    record["stage_version"] = 0
    (folder / "started.json").write_text(json.dumps(record))
    assert "version of the stage  0 → 1" in refused(3, *on(finished, "generate", iteration=2))
    done(*on(finished, "generate", iteration=2), "--force")
    assert manifest(finished, 2, "generate")["stage_version"] == 1
    assert all_outputs(finished)["iter-002/generate"]


def test_status_does_not_call_a_stage_stale_because_its_scorer_is_elsewhere(
    tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "scorer_for_status.py").write_text(
        "def score(prompts, responses):\n    return [len(r) for r in responses]\n"
    )
    monkeypatch.chdir(home)
    run = small_run(tmp_path / "run", small_model, prompts_file, oracle="python:scorer_for_status:score")
    for stage in STAGES[:4]:
        done(*on(run, stage))
    monkeypatch.chdir(tmp_path)
    found = json.loads(done(*on(run, "status"), "--json").stdout)
    assert found["iterations"][0]["stages"]["label"]["state"] == "complete"
    assert found["next"] == f"activedpo train --run {run} --iteration 1"


def test_a_scorer_that_is_not_there_is_found_before_any_work(new_run: Path) -> None:
    assert "no module `nowhere`" in refused(2, *on(new_run, "run"), "--oracle", "python:nowhere:score")
    assert not (new_run / "iter-001").exists()


def test_a_score_that_nobody_recorded_is_found_before_any_work(tmp_path: Path, small_model: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(
        "".join(
            json.dumps(
                {"prompt": f"Question {n}?", "responses": [{"text": f"a{n}", "rm": 1}, {"text": f"b{n}", "rm": 2}]}
            )
            + "\n"
            for n in range(12)
        )
    )
    run = small_run(tmp_path / "run", small_model, pool, oracle="recorded")
    said = refused(4, *on(run, "generate"), "--responses", pool, "--score-field", "rmm")
    assert "`rmm`" in said
    assert "scores there are: rm" in said
    assert not (run / "iter-001").exists()
    done(*on(run, "generate"), "--responses", pool, "--score-field", "rm")


def test_no_answer_at_all_is_not_a_partial_labelling(finished: Path) -> None:
    shutil.rmtree(finished / "iter-002" / "label")
    words = (*on(finished, "label", iteration=2), "--oracle", "human", "--accept-partial")
    assert "4 of 4 pairs still wait" in refused(5, *words)
