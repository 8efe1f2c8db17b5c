"""Parts that steps build on: made once, known again, made anew when they would come out otherwise, never half there."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.base.errors import BusyError, InvalidDataError, RefusedError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.engine.parts import Part, ensure
from activedpo_cli.engine.step import Execution
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import Manifest, Started
from activedpo_cli.store.stage_folder import StageFolder


def part(place: Path, text: str, **changes: Any) -> Part:
    def make(folder: StageFolder) -> dict[str, Any]:
        folder.write_json("text.json", text)
        return {"text": text}

    wanted = Started(stage="part", stage_version=1, iteration=0, settings={"seed": len(text)}, inputs={"text": text})
    made = Part(
        folder=StageFolder(place / "part"),
        lock=place / ".locks" / "part.lock",
        wanted=wanted,
        open=lambda folder: AtOnce(lambda: make(folder)),
    )
    return replace(made, **changes)


def made(wanted: Part, *, force: bool = False) -> tuple[Manifest, bool]:
    return ensure(wanted, Execution(), SilentProgress(), force=force)


def content(place: Path) -> str:
    return StageFolder(place / "part").read_json("text.json")


def test_it_is_made_once_and_again_when_it_would_differ(tmp_path: Path) -> None:
    first, was_made = made(part(tmp_path, "one"))
    assert was_made
    again, was_made = made(part(tmp_path, "one"))
    assert (again.digest, was_made) == (first.digest, False)
    assert made(part(tmp_path, "two"))[1]
    assert content(tmp_path) == "two"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".locks", "part"]


def test_force_makes_it_again(tmp_path: Path) -> None:
    made(part(tmp_path, "one"))
    assert made(part(tmp_path, "one"), force=True)[1]


def test_what_it_replaces_is_kept_where_it_may_be_worth_it(tmp_path: Path) -> None:
    made(part(tmp_path, "one", stale=tmp_path / ".stale"))
    made(part(tmp_path, "two", stale=tmp_path / ".stale"))
    (kept,) = (tmp_path / ".stale").iterdir()
    assert StageFolder(kept).read_json("text.json") == "one"


def test_notes_of_a_kill_between_finish_and_swap_are_gone(tmp_path: Path) -> None:
    for stale in (None, tmp_path / ".stale"):
        made(part(tmp_path, "one", stale=stale), force=True)
        two = part(tmp_path, "two", stale=stale)
        made(replace(two, folder=StageFolder(tmp_path / ".part.redo"), lock=tmp_path / ".locks" / "other.lock"))
        for note in ("started.json", ".attempts.json"):  # they are removed just after the manifest is written
            (tmp_path / ".part.redo" / note).write_text("{}")
        made(two)
        assert sorted(path.name for path in (tmp_path / "part").iterdir()) == ["manifest.json", "text.json"]
        assert content(tmp_path) == "two"


def test_another_version_makes_it_again(tmp_path: Path) -> None:
    old = part(tmp_path, "one")
    made(old)
    assert made(replace(old, wanted=old.wanted.model_copy(update={"stage_version": 2})))[1]


def test_one_that_may_not_be_replaced_stays(tmp_path: Path) -> None:
    def refuse(differences: list[str]) -> None:
        raise RefusedError("no", details=differences)

    made(part(tmp_path, "one"))
    with pytest.raises(RefusedError) as error:
        made(part(tmp_path, "other", refuse=refuse))
    assert error.value.details[0] == "seed  3 → 5"
    assert content(tmp_path) == "one"


def test_the_same_file_under_another_path_is_the_same(tmp_path: Path) -> None:
    def of(path: str, digest: str) -> Part:
        wanted = Started(
            stage="part", stage_version=1, iteration=0, settings={"sft.data": path}, inputs={"data": digest}
        )
        return part(tmp_path, path, wanted=wanted, files={"sft.data": "data"})

    made(of("here.jsonl", "sha256:a"))
    assert not made(of("there.jsonl", "sha256:a"))[1]
    assert made(of("there.jsonl", "sha256:b"))[1]


def failing(wanted: Part, when: Callable[[StageFolder], None]) -> Part:
    def fail(folder: StageFolder) -> dict[str, Any]:
        when(folder)
        raise RuntimeError

    return replace(wanted, open=lambda folder: AtOnce(lambda: fail(folder)))


def test_the_old_one_stands_until_the_new_one_is_whole(tmp_path: Path) -> None:
    made(part(tmp_path, "one"))
    with pytest.raises(RuntimeError):
        made(failing(part(tmp_path, "two"), lambda folder: folder.write_json("half.json", 1)))
    assert content(tmp_path) == "one"
    assert not made(part(tmp_path, "one"))[1]
    made(part(tmp_path, "two"))
    assert content(tmp_path) == "two"


def test_begun_work_is_continued_and_that_of_something_else_is_not(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        made(failing(part(tmp_path, "one"), lambda folder: folder.write_json("half.json", 1)))
    assert set(made(part(tmp_path, "one"))[0].outputs) == {"half.json", "text.json"}
    with pytest.raises(RuntimeError):
        made(failing(part(tmp_path / "b", "one"), lambda folder: folder.write_json("half.json", 1)))
    assert set(made(part(tmp_path / "b", "two"))[0].outputs) == {"text.json"}


def test_one_that_was_finished_beside_the_old_one_takes_its_place(tmp_path: Path) -> None:
    """As after a kill between the last byte of the new one and the renames."""
    made(part(tmp_path, "one"))
    made(part(tmp_path / "elsewhere", "two"))
    (tmp_path / "elsewhere" / "part").rename(tmp_path / ".part.redo")
    never = failing(part(tmp_path, "two"), lambda folder: pytest.fail("it is there"))
    assert made(never)[0].summary == {"text": "two"}
    assert content(tmp_path) == "two"


def test_another_process_at_work_is_named(tmp_path: Path) -> None:
    wanted = part(tmp_path, "one")
    with exclusive(wanted.lock, "part"), pytest.raises(BusyError):
        made(wanted)


def copied(place: Path, text: str, **changes: Any) -> Part:
    """A part whose output people find as `shown.json` beside its folder."""
    return part(place, text, public=lambda name: place / "shown.json", **changes)


def test_a_copy_comes_back_and_is_what_was_made(tmp_path: Path) -> None:
    made(copied(tmp_path, "one"))
    shown = tmp_path / "shown.json"
    shown.unlink()
    assert not made(copied(tmp_path, "one"))[1]
    assert shown.read_text() == '"one"\n'


def test_a_copy_is_never_made_of_what_was_damaged_since(tmp_path: Path) -> None:
    made(copied(tmp_path, "one"))
    (tmp_path / "part" / "text.json").write_text('"eno"\n')
    (tmp_path / "shown.json").unlink()
    assert made(copied(tmp_path, "one"))[1]
    assert (tmp_path / "shown.json").read_text() == '"one"\n'


def test_another_file_in_the_place_of_a_copy_is_asked_about_and_that_of_the_old_one_is_not(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise RefusedError(path.name)

    made(copied(tmp_path, "one"))
    made(copied(tmp_path, "two", replace=refuse))
    assert (tmp_path / "shown.json").read_text() == '"two"\n'
    (tmp_path / "shown.json").write_text("mine")
    with pytest.raises(RefusedError, match=r"shown\.json"):
        made(copied(tmp_path, "two", replace=refuse))
    assert (tmp_path / "shown.json").read_text() == "mine"


def test_a_kill_before_the_swap_leaves_nothing_to_do_twice(tmp_path: Path) -> None:
    """Between the copy and the swap, and between the removal of the old one and the rename of the new one."""
    made(copied(tmp_path, "one"))
    made(copied(tmp_path / "b", "two"))
    (tmp_path / "b" / "part").rename(tmp_path / ".part.redo")
    never = failing(copied(tmp_path, "two"), lambda folder: pytest.fail("it is there"))
    assert made(never)[0].summary == {"text": "two"}
    assert (tmp_path / "shown.json").read_text() == '"two"\n'
    (tmp_path / "part").rename(tmp_path / ".part.redo")
    (tmp_path / "shown.json").unlink()
    assert made(failing(copied(tmp_path, "two"), lambda folder: pytest.fail("it is there")))[0].summary == {
        "text": "two"
    }


def test_a_damaged_record_is_said_and_force_makes_it_again(tmp_path: Path) -> None:
    made(part(tmp_path, "one"))
    (tmp_path / "part" / "manifest.json").write_text("{")
    with pytest.raises(InvalidDataError):
        made(part(tmp_path, "one"))
    assert made(part(tmp_path, "one"), force=True)[1]
    assert content(tmp_path) == "one"


def test_what_a_killed_writer_left_anywhere_in_the_folder_is_swept(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        made(failing(part(tmp_path, "one"), lambda folder: folder.write_json("half.json", 1)))
    (tmp_path / "part" / "figures").mkdir()
    (tmp_path / "part" / "figures" / ".reward.png.tmp").write_text("half")
    assert set(made(part(tmp_path, "one"))[0].outputs) == {"half.json", "text.json"}


def test_what_should_not_be_made_is_not_begun(tmp_path: Path) -> None:
    def check() -> None:
        raise RefusedError("not here")

    with pytest.raises(RefusedError):
        made(part(tmp_path, "one", check=check))
    assert not (tmp_path / "part").exists()
