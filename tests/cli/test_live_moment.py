"""What the live view says at a moment that was made by hand, and that it fits wherever it is shown."""

import io
from dataclasses import replace
from typing import Any

import pytest
from command_line import STAGES
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, Group

from activedpo_cli.cli.live_view import LoopState, duration, live_lines
from activedpo_cli.cli.render import counting_bar

HOSTILE = "x\x1b[31m\n\u202e[/bold] 模型\t"


def evaluation(iteration: int, reward: float | None, win_rate: float | None = None, **more: Any) -> dict[str, Any]:
    ends = {} if reward is None else {"reward_ci_low": reward - 0.02, "reward_ci_high": reward + 0.02}
    return {
        "iteration": iteration,
        "labels_spent": 16 * iteration,
        "reward_mean": reward,
        "win_rate": win_rate,
        **ends,
        **more,
    }


MOMENT = LoopState(
    name="tldr",
    model="gemma-2b",
    method="activedpo",
    iterations=3,
    began=1000.0,
    seconds={(1, name): 10.0 for name in STAGES} | {(2, "generate"): 6.0},
    iteration=2,
    running="featurize",
    stage_began=1060.0,
    label="gradients of responses",
    evaluations=(evaluation(0, 0.4), evaluation(1, 0.6, 0.625)),
)


def shown(state: LoopState, now: float, width: int = 80, height: int = 24, encoding: str = "utf-8") -> list[str]:
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=screen, width=width, height=height, _environ={})
    bar = counting_bar("", 200, "responses", done=20) if state.running else None
    if bar:
        bar.advance(bar.task_ids[0], 40)
    console.print(Group(*live_lines(state, now, bar, console)))
    screen.flush()
    return [line.rstrip() for line in screen.buffer.getvalue().decode(encoding).split("\n")][:-1]


def test_a_moment() -> None:
    """Left: of featurize 10 s - 6 s; select, label, train, evaluate 10 s each; then generate 6 s, which is what it took
    after iteration 1, and the five others: 4 + 40 + 56 = 100 s.
    """
    lines = shown(MOMENT, 1066.0)
    bar = lines.pop(7)
    assert "━" in bar
    assert "60/200 responses" in bar
    assert lines == [
        "tldr · iteration 2 of 3 · activedpo · gemma-2b",
        "✓ generate    6.0 s",
        "▸ featurize   6.0 s  gradients of responses",
        "· select",
        "· label",
        "· train",
        "· evaluate",
        "elapsed 1:06 · about 1:40 left",
        "",
        "  labels  reward  win rate",
        "       0   0.400         –",
        "      16   0.600    62.5 %",
        "  reward ▁█",
    ]


@pytest.mark.parametrize("width", [20, 80])
def test_where_only_ascii_can_be_shown(width: int) -> None:
    lines = shown(MOMENT, 1066.0, width, encoding="ascii")
    assert lines[1] == "+ generate    6.0 s"
    assert lines[2].startswith("> featurize   6.0")


def test_a_narrow_terminal_keeps_each_thing_in_its_line() -> None:
    lines = shown(MOMENT, 1066.0, width=40)
    assert lines[0] == "tldr · iteration 2 of 3 · activedpo · …"
    assert "60/200 responses" in lines[7]
    assert lines[10:12] == ["  labels  reward  win rate", "       0   0.400         –"]


def test_a_low_terminal_keeps_what_runs() -> None:
    whole = shown(MOMENT, 1066.0)
    without_bar = [line for line in whole if "60/200" not in line]
    assert shown(MOMENT, 1066.0, height=10)[-1] == without_bar[7], "elapsed, without the evaluations"
    assert [line for line in shown(MOMENT, 1066.0, height=9) if "60/200" not in line] == [
        without_bar[n] for n in (0, 2, 7)
    ]
    assert "60/200 responses" in shown(MOMENT, 1066.0, height=9)[2]


def test_many_evaluations_leave_out_the_middle() -> None:
    many = LoopState(**{**vars(MOMENT), "evaluations": tuple(evaluation(t, t / 100, 0.5) for t in range(40))})
    lines = shown(many, 1066.0)
    assert len(lines) < 24
    labels = [int(line.split()[0]) for line in lines[11:-1]]
    assert labels == [0, *(16 * t for t in range(40 - len(labels) + 1, 40))]
    assert len(labels) > 8
    assert lines[-1].startswith("  reward ▁")


def test_without_a_scorer_there_are_no_rewards() -> None:
    state = LoopState(**{**vars(MOMENT), "evaluations": (evaluation(0, None), evaluation(1, None))})
    assert shown(state, 1066.0)[9:] == ["", "  labels", "       0", "      16"]


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ({"seconds": {}}, None),
        ({"seconds": {(1, name): 10.0 for name in STAGES[:-1]}}, None),
        ({"seconds": dict.fromkeys(MOMENT.seconds, 10.0)}, 4 + 4 * 10 + 60),
        # a stage that was resumed in iteration 1 says too little, that of iteration 2 counts
        ({"resumed": frozenset({(1, "generate")})}, 100),
        ({"resumed": frozenset({(1, "train")})}, None),
        ({"iterations": 2}, 4 + 40),
        ({"running": None}, 10 + 40 + 56),
        # it has taken longer than usual already
        ({"stage_began": 900.0}, 40 + 56),
    ],
)
def test_the_time_left_is_learned_from_stages_of_the_same_kind(changed: dict[str, Any], left: float | None) -> None:
    assert LoopState(**{**vars(MOMENT), **changed}).seconds_left(1066.0) == left


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1:00"), (185, "3:05"), (7385, "2:03:05")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(
    width=st.integers(12, 200),
    height=st.integers(1, 60),
    encoding=st.sampled_from(["utf-8", "ascii"]),
    name=st.one_of(st.just(HOSTILE), st.text(max_size=80)),
    rewards=st.lists(st.one_of(st.none(), FINITE, st.just(float("nan"))), max_size=40),
    running=st.sampled_from([None, *STAGES]),
    now=st.floats(1000, 1e7),
)
def test_it_fits_and_nothing_in_it_steers_the_terminal(
    width: int, height: int, encoding: str, name: str, rewards: list, running: Any, now: float
) -> None:
    name = name if encoding == "utf-8" else name.encode("ascii", "backslashreplace").decode()
    state = LoopState(
        name=name,
        model=name,
        method=name,
        iterations=12,
        began=1000.0,
        running=running,
        label=name,
        evaluations=tuple(evaluation(t, reward) for t, reward in enumerate(rewards)),
    )
    lines = shown(state, now, width, height, encoding)
    assert len(lines) <= max(height - 1, 1)
    for line in lines:
        assert cell_len(line) <= width
        assert not any(ord(sign) < 32 or 0x7F <= ord(sign) < 0xA0 or sign in "\u202e\u2028" for sign in line)
    if height >= 10:
        assert lines[8].startswith("elapsed")


def test_sft_before_the_first_iteration() -> None:
    """It has a line of its own only where it is part of the loop, and keeps it; its time says nothing of other stages."""
    state = replace(MOMENT, seconds={}, iteration=0, running="sft", evaluations=())
    lines = shown(state, 1066.0)
    assert "iteration 1 of 3" in lines[0]
    assert [line.split()[1] for line in lines[1:8]] == ["sft", *STAGES]
    assert "left" not in lines[-1]
    later = shown(replace(MOMENT, seconds={**MOMENT.seconds, (0, "sft"): 12.0}), 1066.0)
    assert later[1].split()[1:] == ["sft", "12", "s"]
    assert len(shown(MOMENT, 1066.0)) == len(later) - 1
    assert any("sft" in line for line in shown(state, 1066.0, height=5))
