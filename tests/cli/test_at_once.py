"""Two commands on one run, a run that moves, and inputs that change under a command's hands."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from command_line import STAGES, activedpo, all_outputs, done, manifest, on, refused, rows, snapshot
from zygote import Zygote

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.store.run import Run
from activedpo_cli.train import step as train

CHANGES = {
    "generate": "generate.temperature=0.7",
    "featurize": "featurize.tokens_per_batch=999",
    "select": "select.budget=3",
    "label": "label.unit_size=7",
    "train": "train.beta=0.3",
    "evaluate": "evaluate.num_responses=5",
}
SELF_EDITING = """
def score(prompts, responses):
    with open(__file__, "a") as stream:
        stream.write("# and more\\n")
    return [float(len(response)) for response in responses]
"""


def test_settings_given_by_many_commands_at_once_are_all_kept(finished: Path, zygote: Zygote, tmp_path: Path) -> None:
    """Each names a stage that is finished and a setting of another, which is for iterations to come."""
    others = dict(zip(STAGES, [CHANGES[name] for name in (*STAGES[1:], STAGES[0])], strict=True))
    commands = [
        zygote.start((*on(finished, stage, iteration=2), "--set", text, "--quiet"), tmp_path, stderr=tmp_path / stage)
        for stage, text in others.items()
    ]
    ended = [zygote.wait(process) for process in commands]
    assert ended == [0] * len(commands), [(tmp_path / stage).read_text() for stage in others]
    config = Run(finished).config
    for text in others.values():
        key, _, value = text.partition("=")
        section, _, name = key.partition(".")
        assert getattr(getattr(config, section), name) == json.loads(value)
    assert "# " in Run(finished).config_text


def test_a_command_that_fails_leaves_what_another_has_set(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failing takes its own settings back, which may be why, where nobody has changed any since."""
    shutil.rmtree(finished / "iter-002" / "train")

    def fail(*_: Any, **__: Any) -> Any:
        if others:
            Run(finished).change_config(others)
        raise ActiveDPOError("no")

    monkeypatch.setattr(train, "_examples", lambda context: [None])
    monkeypatch.setattr(train, "load_policy", fail)
    before = Run(finished).config_text
    others: dict[str, int] = {}
    refused(1, *on(finished, "train", iteration=2), "--beta", 0.7)
    assert Run(finished).config_text == before
    others = {"evaluate.num_responses": 5}
    refused(1, *on(finished, "train", iteration=2), "--beta", 0.7)
    assert Run(finished).config.evaluate.num_responses == 5


def test_what_another_set_in_between_is_no_part_of_a_change(finished: Path) -> None:
    run = Run(finished)
    original = run.config_text
    Run(finished).change_config({"train.beta": 0.77})
    before, after = run.change_config({"train.learning_rate": 0.5})
    assert before != original
    run.restore_config(after, before)
    assert run.config.train.beta == 0.77
    assert run.change_config({}) == (before, before)


class Session:
    """A command in a process of its own, to which somebody types and listens through pipes."""

    def __init__(self, zygote: Zygote, words: tuple[object, ...], folder: Path) -> None:
        self._zygote, self._errors = zygote, folder / "errors"
        typed, said = folder / "typed", folder / "said"
        for pipe in (typed, said):
            os.mkfifo(pipe)
        self.pid = zygote.start(words, folder, stdin=typed, stdout=said, stderr=self._errors)
        self._stdin, self._stdout = typed.open("w"), said.open()  # in the order in which the process opens them
        self.returncode: int | None = None

    def send(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def wait(self) -> None:
        if self.returncode is None:
            self.returncode = self._zygote.wait(self.pid)

    def types(self, line: str) -> None:
        self._stdin.write(line + "\n")
        self._stdin.flush()

    def heard(self, words: str) -> str:
        """What it says up to the line with these words."""
        lines = [self._stdout.readline()]
        while words not in lines[-1]:
            assert lines[-1], f"it has ended: {lines}"
            lines.append(self._stdout.readline())
        return "".join(lines)

    def to_the_end(self, typed: str = "") -> tuple[str, str]:
        """What it says from here on, and all that went to its standard error, when this has been typed and no more comes."""
        self._stdin.write(typed)
        self._stdin.close()
        out = self._stdout.read()
        self.wait()
        return out, self._errors.read_text()

    def close(self) -> None:
        self.send(signal.SIGKILL)
        self.wait()
        with suppress(BrokenPipeError):
            self._stdin.close()
        self._stdout.close()


Sitting = Callable[..., AbstractContextManager[Session]]


@pytest.fixture
def sitting(zygote: Zygote, tmp_path: Path) -> Sitting:
    """`with sitting(run, "ann"):` a person who labels, and who has a pair before them."""

    @contextmanager
    def sit(run: Path, name: str, *more: str) -> Iterator[Session]:
        words = (*on(run, "label", iteration=2), "--oracle", "human", "--annotator", name, *more)
        session = Session(zygote, words, Path(tempfile.mkdtemp(dir=tmp_path)))
        try:
            session.heard("Response 2")
            yield session
        finally:
            session.close()

    return sit


@pytest.fixture
def unlabelled(finished: Path) -> Path:
    """A run whose second iteration waits for labels: 4 pairs."""
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    return finished


def answers(run: Path) -> list[tuple[str, str]]:
    """Who has answered which pair, in the order of the log."""
    log = rows(run / "iter-002" / "label" / "labels.jsonl")
    assert [event["sequence"] for event in log] == list(range(len(log)))
    return [(event["label"]["annotator"], event["label"]["pair_id"]) for event in log]


def test_while_a_person_labels(unlabelled: Path, sitting: Sitting) -> None:
    """Nobody closes it, trains on half of it or makes it again under their eyes; what has nothing to do with it goes on."""
    features = all_outputs(unlabelled)["iter-002/featurize"]
    with sitting(unlabelled, "ann") as session:
        session.types("t")
        session.heard("Response 2")
        words = on(unlabelled, "label", iteration=2)
        for again in ((*words, "--force"), (*words, "--accept-partial")):
            assert f"process {session.pid} " in refused(75, *again)
        refused(4, *on(unlabelled, "train", iteration=2))
        done(*on(unlabelled, "featurize", iteration=2), "--force", "--quiet")
        assert all_outputs(unlabelled)["iter-002/featurize"] == features
        assert json.loads(done(*on(unlabelled, "status"), "--json").stdout)
        assert len(answers(unlabelled)) == 1
        _, said = session.to_the_end("t\nt\nt\n")
    assert session.returncode == 0, said
    assert len(answers(unlabelled)) == 4


def test_a_command_that_fails_leaves_the_stage_to_who_sits_there(
    unlabelled: Path, sitting: Sitting, tmp_path: Path
) -> None:
    """Also to somebody who has not answered yet."""
    (there := tmp_path / "there.csv").touch()
    words = (*on(unlabelled, "label", iteration=2), "--oracle", "human")
    with sitting(unlabelled, "ann") as session:
        refused(4, *words, "--guidelines", tmp_path / "missing.txt")
        refused(2, *words, "--export", there)
        _, told = session.to_the_end("t\n" * 4)
        assert session.returncode == 0, told
    assert len(answers(unlabelled)) == 4


def test_who_began_a_stage_leaves_it_to_who_sits_there(unlabelled: Path, sitting: Sitting) -> None:
    with sitting(unlabelled, "ann") as first, sitting(unlabelled, "bob") as second:
        first.send(signal.SIGTERM)
        first.to_the_end()
        _, told = second.to_the_end("t\n" * 4)
        assert second.returncode == 0, told
    assert [name for name, _ in answers(unlabelled)] == ["bob"] * 4


def test_a_stage_asked_anew_that_somebody_else_closes(finished: Path, sitting: Sitting, tmp_path: Path) -> None:
    """The sitting ends well, although it was begun with an option that a closed stage refuses."""
    path = tmp_path / "pairs.jsonl"
    words = (*on(finished, "label", iteration=2), "--oracle", "human", "--force")
    with sitting(finished, "ann", "--force", "--ask-again") as session:
        assert activedpo(*words, "--export", path).exit_code == 5
        path.write_text("".join(json.dumps(row | {"preference": "tie"}) + "\n" for row in rows(path)))
        done(*words, "--import", path)
        _, told = session.to_the_end("1\n")
        assert session.returncode == 0, told
    assert manifest(finished, 2, "label")["summary"]["tie"] == 4


def test_two_people_share_the_pairs_of_a_stage(unlabelled: Path, sitting: Sitting) -> None:
    """Each sees pairs that the other does not have, and whoever gives the last answer closes the stage."""
    pairs = [row["pair_id"] for row in rows(unlabelled / "iter-002" / "select" / "selection.jsonl")]
    with sitting(unlabelled, "root") as first, sitting(unlabelled, "root") as second:
        second.types("t")
        second.heard("Response 2")
        second.types("t")
        second.heard("Response 2")
        second.types("s")
        out, told = second.to_the_end()
        assert second.returncode == 5, told
        assert "1 answer is left to other people" in out
        assert "1 of 4 pairs still wait" in told
        first.to_the_end("b\n")
        assert first.returncode == 0
    assert answers(unlabelled) == [("root", pair) for pair in [*pairs[1:], pairs[0]]]
    assert manifest(unlabelled, 2, "label")["summary"]["labels_spent"] == 3


def test_a_pair_is_free_again_once_its_process_is_killed(unlabelled: Path, sitting: Sitting) -> None:
    pairs = [row["pair_id"] for row in rows(unlabelled / "iter-002" / "select" / "selection.jsonl")]
    with sitting(unlabelled, "ann") as first, sitting(unlabelled, "bob") as second:
        first.send(signal.SIGKILL)
        first.wait()
        second.types("t")
        second.heard("Response 2")
        second.types("t")
        second.heard("Response 2")
    assert answers(unlabelled) == [("bob", pairs[1]), ("bob", pairs[0])]


def test_answers_are_imported_beside_a_sitting(unlabelled: Path, sitting: Sitting, tmp_path: Path) -> None:
    """Also about the pair on the screen, whose two answers are kept; imported to the end, the sitting hears of it."""
    path = tmp_path / "pairs.jsonl"
    words = (*on(unlabelled, "label", iteration=2), "--oracle", "human")
    assert activedpo(*words, "--export", path).exit_code == 5
    asked = rows(path)
    with sitting(unlabelled, "ann") as session:
        path.write_text(json.dumps(asked[0] | {"preference": "tie", "annotator": "bob"}) + "\n")
        assert activedpo(*words, "--import", path).exit_code == 5
        session.types("1")
        assert "saved   2/5" in session.heard("Response 2"), "every answer is counted, of as many as may come"
        path.write_text(
            "".join(json.dumps(row | {"preference": "skip", "annotator": "bob"}) + "\n" for row in asked[1:])
        )
        done(*words, "--import", path)
        _, told = session.to_the_end("1\n")
        assert session.returncode == 0, told
        assert "was closed or taken away by another command while you answered" in told
        assert "up to date" in told
    first, *others = [row["pair_id"] for row in asked]
    assert answers(unlabelled) == [("bob", first), ("ann", first), *(("bob", pair) for pair in others)]


def test_a_run_that_was_moved_and_touched_is_what_it_was(finished: Path, tmp_path: Path) -> None:
    """As after `mv`, `rsync` without times, or a clock that was set back."""
    before = {name: digest for name, (digest, _) in snapshot(finished).items()}
    moved = finished.rename(tmp_path / "elsewhere")
    for number, path in enumerate(sorted(moved.rglob("*"), reverse=True)):
        os.utime(path, (10**9 + number, 10**9 - number))
    times = {path: path.stat().st_mtime_ns for path in moved.rglob("*") if path.is_file()}
    done(*on(moved, "run"), "--iterations", 2, "--no-report", "--quiet")
    for stage in STAGES:
        assert "up to date" in done(*on(moved, stage, iteration=2)).stderr
    assert {name: digest for name, (digest, _) in snapshot(moved).items()} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_an_oracle_edited_while_it_answers_is_told_afterwards(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is the file as it was before."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "self_editing.py"
    path.write_text(SELF_EDITING)
    original = sha256(path.read_bytes()).hexdigest()
    words = (*on(finished, "label", iteration=2), "--oracle", "python:self_editing:score")
    done(*words, "--force")
    assert path.read_text().endswith("# and more\n")
    assert original in str(manifest(finished, 2, "label")["inputs"])
    status = json.loads(done(*on(finished, "status"), "--json").stdout)
    assert status["iterations"][1]["stages"]["label"]["state"] == "stale"
    assert "python:self_editing:score" in refused(3, *words)


def test_examples_added_while_they_are_learnt_are_told_afterwards(
    new_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from activedpo_cli.train import sft_step as sft

    data = tmp_path / "examples.jsonl"
    row = json.dumps({"prompt": "Say:", "completion": " so."}) + "\n"
    data.write_text(row * 4)
    original = sha256(data.read_bytes()).hexdigest()
    real = sft._loss_before

    def edited(*args: Any) -> Any:
        with data.open("a") as stream:
            stream.write(row)
        return real(*args)

    monkeypatch.setattr(sft, "_loss_before", edited)
    done(*on(new_run, "sft"), "--data", data, "--epochs", 1, "--quiet")
    record = json.loads((new_run / "reference" / "sft" / "manifest.json").read_bytes())
    assert record["inputs"]["data"] == f"sha256:{original}"
    assert "input data" in refused(3, *on(new_run, "sft"))
