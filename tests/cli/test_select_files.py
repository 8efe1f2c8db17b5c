"""`activedpo select --features …`: features and pairs of the user's own, no run and no model."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import activedpo, done, refused, rows
from safetensors.torch import save_file

from activedpo_cli.core.design_matrix import design_matrix, pair_uncertainty

RESPONSES, PAIRS, DIM = 60, 90, 12


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """F.safetensors, P.jsonl and L.safetensors in a folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIVEDPO_RUN", str(tmp_path / "no-run"))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(RESPONSES, DIM, generator=generator).half()
    save_file({"features": features}, "F.safetensors")
    save_file({"pair_features": torch.randn(9, DIM, generator=generator)}, "L.safetensors")
    write_pairs(torch.randint(RESPONSES, (PAIRS, 2), generator=generator).tolist())
    return tmp_path


def write_pairs(pairs: list[Any], name: str = "P.jsonl") -> None:
    lines = [
        {"pair_id": f"pair {place}", "response_a": a, "response_b": b, "prompt_id": f"p{place // 3}"}
        for place, (a, b) in enumerate(pairs)
    ]
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))


def select(*words: object, output: str = "picked.jsonl") -> tuple[object, ...]:
    given = {"--features": "F.safetensors", "--pairs": "P.jsonl", "--budget": 7, "--output": output}
    typed = [str(word) for word in words]
    rest = [word for flag, value in given.items() if flag not in typed for word in (flag, value)]
    return ("select", *rest, *typed)


def by_hand(labelled: bool, ridge: float, budget: int, *, unit: str = "none") -> list[tuple[str, float]]:
    """Algorithm 1, lines 5–9, on the files, with an inverse for each pick."""
    from safetensors.torch import load_file

    features = load_file("F.safetensors")["features"].double()
    if unit == "response":
        features = torch.nn.functional.normalize(features)
    pairs = [(line["pair_id"], line["response_a"], line["response_b"]) for line in rows(Path("P.jsonl"))]
    phi = torch.stack([features[a] - features[b] for _, a, b in pairs])
    history = load_file("L.safetensors")["pair_features"].double() if labelled else phi[:0]
    if unit == "pair":
        phi, history = torch.nn.functional.normalize(phi), torch.nn.functional.normalize(history)
    found: list[tuple[str, float]] = []
    picked: list[int] = []
    for _ in range(budget):
        scores = pair_uncertainty(phi, torch.linalg.inv(design_matrix(torch.cat([history, phi[picked]]), ridge)))
        scores[picked] = -1
        picked.append(int(scores.argmax()))
        found.append((pairs[picked[-1]][0], float(scores[picked[-1]])))
    return found


@pytest.mark.parametrize("memory", [1, 1e-9, 1e-5])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("unit", ["none", "response", "pair"])
def test_picks_are_those_by_hand(files: Path, labelled: bool, memory: float, unit: str) -> None:
    """In memory, and streamed with a pool of one pair or of a few."""
    words = ["--labelled", "L.safetensors"] if labelled else []
    if unit != "none":
        words += ["--set", f"select.normalise={unit}"]
    result = done(*select(*words, "--set", "select.activedpo.ridge=0.5", "--memory", memory))
    assert result.stdout == "picked.jsonl\n"
    assert ("passes" in result.stderr) == (memory < 1)
    picked = rows(files / "picked.jsonl")
    assert [line["rank"] for line in picked] == list(range(1, 8))
    assert all(list(line) == ["pair_id", "rank", "score"] for line in picked)
    expected = by_hand(labelled, 0.5, 7, unit=unit)
    if unit == "pair" and not labelled:  # all scores tie at first
        assert [line["score"] for line in picked][0] == pytest.approx(2**0.5)
        return
    assert [line["pair_id"] for line in picked] == [name for name, _ in expected]
    assert [line["score"] for line in picked] == pytest.approx([score for _, score in expected])


def test_a_ridge_is_ignored_by_methods_without_one(files: Path) -> None:
    assert (
        "--ridge is ignored: method `k-center` has no ridge"
        in done(*select("--method", "k-center", "--ridge", 0)).stderr
    )
    said = done(*select("--method", "random", "--set", "select.activedpo.ridge=5", output="other.jsonl")).stderr
    assert "`select.activedpo.ridge` is not used: the method is `random`" in said


@pytest.mark.parametrize("memory", [1, 1e-5])
def test_responses_that_hardly_differ_are_normalised_exactly(files: Path, memory: float) -> None:
    """Cosines of 1 − 5e-9: rounded to float32 at unit norm, a thousandth of their difference is noise."""
    generator = torch.Generator().manual_seed(4)
    base = torch.randn(RESPONSES // 2, 64, generator=generator)
    features = torch.cat([base, base + 1e-4 * torch.randn(base.shape, generator=generator)])
    unit = torch.nn.functional.normalize(features.double())
    assert 1 - float(unit[0] @ unit[RESPONSES // 2]) < 1e-8
    save_file({"features": features}, "F.safetensors")
    write_pairs([(row, row + RESPONSES // 2) for row in range(RESPONSES // 2)])
    ridge = 1e-8  # as ‖φ‖², so that what was picked counts
    done(*select("--set", "select.normalise=response", "--ridge", ridge, "--memory", memory))
    expected = by_hand(False, ridge, 7, unit="response")
    found = rows(files / "picked.jsonl")
    assert [line["pair_id"] for line in found] == [name for name, _ in expected]
    assert [line["score"] for line in found] == pytest.approx([score for _, score in expected], rel=1e-8)


@pytest.mark.parametrize("memory", [1, 1e-5])
def test_ties_and_prompts_are_settled_alike_in_memory_and_streamed(files: Path, memory: float) -> None:
    save_file({"features": torch.eye(RESPONSES)}, "F.safetensors")
    done(*select("--memory", 1, "--set", "select.max_per_prompt=1", output="here.jsonl"))
    done(*select("--memory", memory, "--set", "select.max_per_prompt=1", output="there.jsonl"))
    names = [[line["pair_id"] for line in rows(files / name)] for name in ("here.jsonl", "there.jsonl")]
    assert names[0] == names[1]
    assert len({int(name.split()[1]) // 3 for name in names[0]}) == 7


def test_nothing_but_the_output_and_its_record_is_made(files: Path) -> None:
    before = set(files.iterdir())
    done(*select("--memory", 1e-5))
    assert {path.name for path in set(files.iterdir()) - before} == {"picked.jsonl", "picked.jsonl.made.json"}


def test_shards_in_a_folder_are_one_matrix(files: Path) -> None:
    from safetensors.torch import load_file

    done(*select(output="whole.jsonl"))
    features = load_file("F.safetensors")["features"]
    Path("shards").mkdir()
    for number, part in enumerate(features.split(25)):
        save_file({"features": part.clone()}, f"shards/{number:03d}.safetensors")
    done(*select("--features", "shards", "--memory", 1e-5, output="parts.jsonl"))
    pairs = [[line["pair_id"] for line in rows(files / name)] for name in ("whole.jsonl", "parts.jsonl")]
    assert pairs[0] == pairs[1]


def test_again_is_up_to_date_and_something_else_is_refused(files: Path) -> None:
    done(*select())
    made = (files / "picked.jsonl").stat().st_mtime_ns
    assert "up to date: 7 of 90 pairs by activedpo" in done(*select("--memory", 1e-5)).stderr
    assert "select.budget: 7 then, 8 now" in refused(3, *select("--budget", 8))
    assert "select.activedpo.ridge: 0.1 then, 0.2 now" in refused(3, *select("--ridge", 0.2))
    assert "another --labelled" in refused(3, *select("--labelled", "L.safetensors"))
    assert "--force" in refused(3, *select("--set", "seed=1"))
    assert (files / "picked.jsonl").stat().st_mtime_ns == made
    done(*select("--budget", 8, "--force"))
    assert len(rows(files / "picked.jsonl")) == 8
    (files / "picked.jsonl").write_text("mine\n")
    assert "changed since" in refused(3, *select("--budget", 8))
    (files / "picked.jsonl.made.json").unlink()
    assert "nothing says" in refused(3, *select("--budget", 8))
    assert (files / "picked.jsonl").read_text() == "mine\n"


def test_other_methods_work_where_features_are_enough(files: Path) -> None:
    done(*select("--method", "random"))
    assert len({line["pair_id"] for line in rows(files / "picked.jsonl")}) == 7


def test_json_says_what_was_done(files: Path) -> None:
    found = json.loads(done(*select("--json")).stdout)
    assert found["state"] == "done"
    assert found["summary"]["candidates"] == PAIRS
    assert json.loads(done(*select("--json")).stdout)["state"] == "up to date"


def spoil_features(value: float) -> None:
    features = torch.ones(RESPONSES, DIM)
    features[41, 3] = value
    save_file({"features": features}, "F.safetensors")


def cut(name: str, size: int) -> None:
    Path(name).write_bytes(Path(name).read_bytes()[:size])


BAD = {
    "no file": (lambda: Path("F.safetensors").unlink(), (), "no file F.safetensors"),
    "no pairs": (lambda: Path("P.jsonl").unlink(), (), "no file P.jsonl"),
    "no labelled": (None, ("--labelled", "M.safetensors"), "no file M.safetensors"),
    "truncated": (lambda: cut("F.safetensors", 700), (), "F.safetensors is not a whole safetensors file"),
    "truncated header": (lambda: cut("F.safetensors", 20), (), "F.safetensors is not a whole safetensors file"),
    "no bytes": (lambda: cut("F.safetensors", 0), (), "F.safetensors is not a whole safetensors file"),
    "no safetensors": (lambda: Path("F.safetensors").write_bytes(b"x" * 99), (), "not a whole safetensors file"),
    "other tensor": (lambda: save_file({"phi": torch.ones(3, 2)}, "F.safetensors"), (), "tensors there are: phi"),
    "one dimension": (lambda: save_file({"features": torch.ones(3)}, "F.safetensors"), (), "rows and columns"),
    "integers": (lambda: save_file({"features": torch.ones(3, 2).int()}, "F.safetensors"), (), "kind I32"),
    "no rows": (lambda: save_file({"features": torch.ones(0, 2)}, "F.safetensors"), (), "is empty"),
    "mismatch": (
        lambda: save_file({"pair_features": torch.ones(4, DIM + 1)}, "L.safetensors"),
        ("--labelled", "L.safetensors"),
        f"has {DIM + 1} columns",
    ),
    "nan": (lambda: spoil_features(float("nan")), (), "row 41 of `features` of F.safetensors is not finite"),
    "inf": (lambda: spoil_features(float("inf")), ("--memory", 1e-5), "row 41"),
    "labelled nan": (
        lambda: save_file({"pair_features": torch.full((4, DIM), torch.nan)}, "L.safetensors"),
        ("--labelled", "L.safetensors"),
        "row 0 of `pair_features` of L.safetensors",
    ),
    "out of range": (lambda: write_pairs([(0, 1), (2, RESPONSES)]), (), "P.jsonl line 2: `response_b` is 60"),
    "negative": (lambda: write_pairs([(-1, 1)]), (), "P.jsonl line 1: `response_a` is -1"),
    "no number": (lambda: write_pairs([(0.5, 1)]), (), "must be a row number"),
    "repeated": (
        lambda: Path("P.jsonl").write_text('{"pair_id": "x", "response_a": 0, "response_b": 1}\n' * 2),
        (),
        'line 2: `pair_id` "x" is there already',
    ),
    "no id": (lambda: Path("P.jsonl").write_text('{"response_a": 0, "response_b": 1}\n'), (), "`pair_id` must be"),
    "no json": (lambda: Path("P.jsonl").write_text("{\n"), (), "is not JSON"),
    "empty": (lambda: Path("P.jsonl").write_text(""), (), "holds no rows"),
    "budget": (None, ("--budget", PAIRS + 1), "only 90 of P.jsonl can be chosen"),
    "prompts": (None, ("--budget", 31, "--max-per-prompt", 1), "only 30"),
    "ridge": (None, ("--set", "select.activedpo.ridge=0"), "λ must be a positive number, not 0"),
    "negative ridge": (None, ("--set", "select.activedpo.ridge=-0.1"), "λ must be a positive number, not -0.1"),
    "ridge flag": (None, ("--ridge", 0), "λ must be a positive number"),
    "negative ridge flag": (None, ("--ridge", -1), "λ must be a positive number, not -1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_explained_and_leaves_no_output(files: Path, case: str) -> None:
    spoil, words, said = BAD[case]
    if spoil:
        spoil()
    message = refused(4, *select(*words))
    assert said in message
    assert not list(files.glob("*picked*")) + list(files.glob(".*picked*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--features", "F.safetensors"), "needs --pairs and --output too"),
        (("--pairs", "P.jsonl", "--output", "x"), "needs --features too"),
        (("--labelled", "L.safetensors"), "needs --features and --pairs and --output too"),
        (select("--run", "x"), "neither --run nor --iteration"),
        (select("--iteration", 2), "neither --run nor --iteration"),
        (select("--method", "activedp"), "did you mean `activedpo`"),
        (select("--set", "train.beta=1"), "`train.beta` has no meaning"),
        (select("--oracle", "human"), "`label.oracle` has no meaning"),
        (select("--set", "select.activedpo.rigde=1"), "rigde"),
        (select("--budget", 0), "select.budget"),
        (select("--output", "P.jsonl"), "is one of the files to be read"),
        (select("--output", "."), "is a folder"),
    ],
)
def test_wrong_words_are_refused(files: Path, words: tuple[object, ...], said: str) -> None:
    message = refused(2, *(words if words[0] == "select" else ("select", *words)))
    assert said in message
    assert not (files / "picked.jsonl").exists()


def test_a_method_that_needs_more_than_features_is_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.acquisition import random as method

    monkeypatch.setattr(method, "NEEDS", ("logps",))
    assert "needs logps" in refused(2, *select("--method", "random"))


def test_a_killed_choice_goes_on_after_its_picks(files: Path) -> None:
    """Killed in the middle by a signal that nothing can catch, the same command picks what it would have picked."""
    words = [str(word) for word in select("--memory", "1e-9", "--quiet", output="resumed.jsonl")]
    slow = (
        "import sys, time\n"
        "from activedpo_cli.stages.pick_log import PickLog\n"
        "add = PickLog.add\n"
        "PickLog.add = lambda self, *pick: (add(self, *pick), time.sleep(0.3))\n"
        "from activedpo_cli.cli.app import app\n"
        "app(sys.argv[1:])\n"
    )
    log = files / ".resumed.jsonl.picks"
    process = subprocess.Popen([sys.executable, "-c", slow, *words], cwd=files, env=dict(os.environ))
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_bytes().count(b"\n") >= 4:
            break
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = log.read_bytes().count(b"\n") - 1
    assert 3 <= kept < 7
    assert not (files / "resumed.jsonl").exists()
    with log.open("ab") as stream:
        stream.write(b'{"row": 3')  # a torn line
    assert f"goes on after {kept} picks" in done(*select("--memory", 1e-9, output="resumed.jsonl")).stderr
    assert not log.exists()
    done(*select("--memory", 1e-9, output="straight.jsonl"))
    resumed, straight = rows(files / "resumed.jsonl"), rows(files / "straight.jsonl")
    assert [line["pair_id"] for line in resumed] == [line["pair_id"] for line in straight]
    assert [line["score"] for line in resumed] == pytest.approx([line["score"] for line in straight])


def test_picks_of_another_choice_are_not_continued(files: Path) -> None:
    (files / ".picked.jsonl.picks").write_text('{"choice": {}}\n{"row": 1, "score": 2.0}\n')
    result = activedpo(*select("--memory", 1e-5))
    assert "goes on" not in result.stderr
    assert rows(files / "picked.jsonl")[0]["pair_id"] == by_hand(False, 0.1, 1)[0][0]
