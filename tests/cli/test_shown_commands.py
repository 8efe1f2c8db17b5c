"""A command that a hint shows can be pasted: it repeats what was typed, quoted, with what is to change."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, manifest, on, refused, rows

from activedpo_cli.base.typed_words import repeated


@pytest.fixture
def asked(finished: Path) -> Path:
    """A run in a folder with a space, whose second iteration waits for people."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    place = finished.parent / "a place" / "finished"
    place.parent.mkdir()
    finished.rename(place)
    return place


def shown(text: str) -> list[list[str]]:
    """The commands between backticks."""
    return [shlex.split(found) for found in re.findall(r"`(activedpo [^`]*)`", text)]


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["--run", "r", "--iteration=2", "--annotator", "Ann Lee"], ["--annotator", "Ann Lee"]),
        (["--force", "--quiet", "--import", "f.csv", "--oracle=human"], ["--quiet", "--oracle=human"]),
        (["--set", "select.budget=5", "--set", "seed=1", "--budget", "9"], ["--set", "seed=1"]),
        (["--set=select.budget=5", "--set=train.beta=1"], ["--set=train.beta=1"]),
        (["--annotator"], ["--annotator"]),
        (["random", "--run"], ["random"]),
    ],
)
def test_what_is_repeated(words: list[str], kept: list[str]) -> None:
    assert repeated(words, ["--budget"]) == kept


def test_going_on_with_labels_keeps_who_answers_and_by_which_guidelines(asked: Path, tmp_path: Path) -> None:
    text = tmp_path / "our guidelines.txt"
    text.write_text("Shorter is better.")
    people = ("--oracle", "human", "--annotator", "Ann O'Hara", "--guidelines", text)
    said = refused(5, *on(asked, "label", iteration=2), *people, typed="1\nq\n")
    go_on, close = shown(said)
    assert go_on == ["activedpo", *map(str, on(asked, "label", iteration=2)), *map(str, people)]
    assert close == [*go_on, "--accept-partial"]
    screen = activedpo(*go_on[1:], typed="g\n2\nq\n").stdout
    assert "Shorter is better." in screen
    names = {event["label"]["annotator"] for event in rows(asked / "iter-002/label/labels.jsonl")}
    assert names == {"Ann O'Hara"}
    done(*close[1:])


def test_the_file_to_be_read_is_quoted(asked: Path, tmp_path: Path) -> None:
    path = tmp_path / "my pairs.csv"
    result = activedpo(*on(asked, "label", iteration=2), "--oracle", "human", "--annotator", "ann", "--export", path)
    assert shown(result.stderr)[0][-2:] == ["--import", str(path)]
    assert "--annotator" in shown(result.stderr)[0]


def test_a_refusal_repeats_all_settings_and_the_device(asked: Path) -> None:
    typed = ("--budget", "3", "--set", "train.beta=0.7", "--device", "cpu")
    (command,) = shown(refused(3, *on(asked, "select", iteration=2), *typed))
    assert command == ["activedpo", *map(str, on(asked, "select", iteration=2)), *typed, "--force"]
    done(*command[1:])
    assert manifest(asked, 2, "select")["settings"]["select.budget"] == 3
    assert "beta: 0.7" in (asked / "config.yaml").read_text()


def test_a_smaller_budget_takes_the_place_of_the_one_that_was_typed(asked: Path) -> None:
    said = refused(4, *on(asked, "select", iteration=2), "--force", "--set", "select.budget=999", "--quiet")
    (command,) = shown(said)
    assert command[-1] != "999"
    assert "select.budget=999" not in command
    done(*command[1:])


def test_a_comparison_is_shown_with_its_methods_and_settings(asked: Path) -> None:
    words = (
        "compare",
        "random",
        "entropy",
        "--budget",
        "2",
        "--set",
        "label.score_field=stars",
        "--run",
        asked,
        "--json",
    )
    for folder in (*(asked / "iter-002" / name for name in STAGES[2:3]),):
        shutil.rmtree(folder)
    said = refused(4, *words)
    (command,) = shown(said) or [shlex.split(said.partition("hint: ")[2])]
    assert {"random", "--budget", "2", "label.score_field=NAME"} <= set(command)


def test_waiting_for_people_is_no_error(asked: Path, tmp_path: Path) -> None:
    """After a clean end of a sitting, an export, a file with some of the answers, and in the loop."""
    path = tmp_path / "pairs.jsonl"
    for words, typed in (
        ((*on(asked, "label", iteration=2), "--oracle", "human"), "1\nq\n"),
        ((*on(asked, "label", iteration=2), "--export", path), ""),
        ((*on(asked, "label", iteration=2), "--import", path), ""),
        ((*on(asked, "run"), "--iterations", 2), "q\n"),
    ):
        for form in ((), ("--json",)):
            result = activedpo(*words, *form, typed=typed)
            assert result.exit_code == 5, result.output
            assert "error" not in result.output
            assert "pending: " in result.stderr
            if form:
                found = json.loads("{" + result.stdout.partition("{")[2])  # a sitting is on stdout too
                assert (found["state"], found["pairs"]) == ("labels pending", 4)
                assert found["next"].startswith("activedpo label --run ")
