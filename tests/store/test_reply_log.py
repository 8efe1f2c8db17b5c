"""The log of a judge's replies: in order, whole, by several threads, and honest about damage."""

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.records import Spent
from activedpo_cli.store import reply_log
from activedpo_cli.store.reply_log import ReplyLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "judge-replies.jsonl"


def test_replies_are_found_again_in_their_order(path: Path) -> None:
    log, other = ReplyLog(path), ReplyLog(path)
    assert other.replies("x") == []
    for number, key in enumerate("xyx"):
        log.keep(key, {"text": f"\ud800 {number}\n"})
    assert [reply["text"] for reply in other.replies("x")] == ["\ud800 0\n", "\ud800 2\n"]
    assert other.by_key().keys() == {"x", "y"}
    assert not other.begins_anew


def test_a_call_counts_with_all_it_may_cost_until_more_is_known(path: Path) -> None:
    log = ReplyLog(path)
    for call in "abc":
        log.sent(call, Spent(1, 100, 1000))
    assert log.spent == Spent(3, 300, 3000)
    log.untaken("b")
    log.keep("x", {"text": "", "call": "c", "prompt_tokens": 90, "completion_tokens": 7})
    log.keep("x", {"text": "", "prompt_tokens": None, "estimated_tokens": 80, "completion_tokens": None})
    log.keep("x", {"too_long": True})
    assert log.spent == ReplyLog(path).spent == Spent(3, 100 + 90 + 80, 1000 + 7)


def test_what_is_spent_is_not_added_up_anew_for_every_call(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, looked_at = ReplyLog(path), 0
    real = reply_log._cost

    def counted(reply: Mapping[str, Any]) -> Spent:
        nonlocal looked_at
        looked_at += 1
        return real(reply)

    monkeypatch.setattr(reply_log, "_cost", counted)
    for number in range(50):
        log.keep("x", {"prompt_tokens": 1, "completion_tokens": 1})
        assert log.spent.calls == number + 1
    assert looked_at == 50


def test_a_log_without_a_call_that_was_taken_can_be_removed(path: Path) -> None:
    log = ReplyLog(path)
    log.remove_if_idle()
    log.sent("a", Spent(1, 1, 1))
    log.remove_if_idle()
    assert path.exists()
    log.untaken("a")
    log.remove_if_idle()
    assert not path.exists()
    log.keep("x", {"text": ""})
    log.remove_if_idle()
    assert len(ReplyLog(path).replies("x")) == 1


def test_beginning_anew_is_noted_once(path: Path) -> None:
    log = ReplyLog(path)
    log.begin_anew()
    log.begin_anew()
    assert path.read_bytes().count(b"\n") == 1
    assert ReplyLog(path).begins_anew


def test_a_torn_end_is_no_reply_and_is_cut_before_the_next_one(path: Path) -> None:
    log = ReplyLog(path)
    log.keep("x", {"text": "whole"})
    whole = path.read_bytes()
    log.keep("x", {"text": "torn"})
    for length in range(len(whole) + 1, len(path.read_bytes()), 7):
        torn = ReplyLog(path)
        path.write_bytes(whole + b'{"sequence": 1, "ti'[: length - len(whole)])
        assert [reply["text"] for reply in torn.replies("x")] == ["whole"]
        torn.keep("x", {"text": "next"})
        assert [reply["text"] for reply in ReplyLog(path).replies("x")] == ["whole", "next"]


@pytest.mark.parametrize(
    "wrong", [b"nonsense\n", b"{}\n", b"[]\n", b'{"sequence": 0, "crc32": 3}\n', b"[" * 9999 + b"\n"]
)
def test_a_damaged_line_is_named_with_a_way_out(path: Path, wrong: bytes) -> None:
    ReplyLog(path).keep("x", {"text": "a"})
    path.write_bytes(path.read_bytes() + wrong)
    with pytest.raises(InvalidDataError, match="line 2 is not an intact reply"):
        ReplyLog(path).replies("x")


def test_threads_write_one_behind_the_other(path: Path) -> None:
    log = ReplyLog(path)
    threads = [
        threading.Thread(target=lambda key=key: [log.keep(key, {"number": n}) for n in range(20)]) for key in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key: [r["number"] for r in found] for key, found in ReplyLog(path).by_key().items()} == {
        key: list(range(20)) for key in "abcd"
    }
