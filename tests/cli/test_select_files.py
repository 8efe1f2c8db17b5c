"""`activedpo select --features …`: features and pairs of the user's own, no run and no model."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import activedpo, done, refused, rows
from safetensors.torch import save_file
from zygote import Zygote

from activedpo_cli.base.config import build_config, nested
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.bench.measuring import peak_memory
from activedpo_cli.select.design.design import design_matrix, pair_uncertainty
from activedpo_cli.select.from_files.candidate_files import CandidateFiles
from activedpo_cli.select.from_files.choice import PickLog, choose
from activedpo_cli.select.from_files.pair_list import PairList

RESPONSES, PAIRS, DIM = 60, 48, 12


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """F.safetensors, P.jsonl and L.safetensors in a folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACTIVEDPO_RUN", str(tmp_path / "no-run"))
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(RESPONSES, DIM, generator=generator).half()
    save_file({"features": features}, "F.safetensors")
    save_file({"pair_features": torch.randn(9, DIM, generator=generator)}, "L.safetensors")
    every = torch.combinations(torch.arange(RESPONSES))
    write_pairs(every[torch.randperm(len(every), generator=generator)[:PAIRS]].tolist())
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
    result = done(*select(*words, "--set", "select.methods.activedpo.ridge=0.5", "--memory", memory))
    assert result.stdout == "picked.jsonl\n"
    assert ("read in" in result.stderr) == (memory < 1)
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
    said = done(*select("--method", "random", "--set", "select.methods.activedpo.ridge=5", output="other.jsonl")).stderr
    assert "`select.methods.activedpo.ridge` is not used: the method is `random`" in said


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
    made = {path.name for path in set(files.iterdir()) - before}
    assert made == {"picked.jsonl", ".picked.jsonl.made", ".locks"}
    assert [path.name for path in (files / ".locks").iterdir()] == ["picked.jsonl.lock"]
    assert {path.name for path in (files / ".picked.jsonl.made").iterdir()} == {"picked.jsonl", "manifest.json"}


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
    assert "up to date: 7 of 48 pairs by activedpo" in done(*select("--memory", 1e-5)).stderr
    assert "select.budget  7 → 8" in refused(3, *select("--budget", 8))
    assert "select.methods.activedpo.ridge  0.1 → 0.2" in refused(3, *select("--ridge", 0.2))
    assert "input labelled  none → " in refused(3, *select("--labelled", "L.safetensors"))
    assert "--force" in refused(3, *select("--set", "seed=1"))
    assert (files / "picked.jsonl").stat().st_mtime_ns == made
    done(*select("--budget", 8, "--force"))
    assert len(rows(files / "picked.jsonl")) == 8
    (files / "picked.jsonl").write_text("mine\n")
    assert "changed since" in refused(3, *select("--budget", 8))
    shutil.rmtree(files / ".picked.jsonl.made")
    assert "nothing says" in refused(3, *select("--budget", 8))
    assert (files / "picked.jsonl").read_text() == "mine\n"


def test_an_output_that_is_gone_comes_back_without_a_new_choice(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done(*select())
    picked = (files / "picked.jsonl").read_bytes()
    (files / "picked.jsonl").unlink()
    monkeypatch.setattr("activedpo_cli.select.methods.activedpo.choose", None)
    monkeypatch.setattr("activedpo_cli.select.methods.activedpo.choose_streamed", None)
    assert "up to date" in done(*select()).stderr
    assert (files / "picked.jsonl").read_bytes() == picked


@pytest.mark.parametrize("name", ["picks.jsonl", "picked.jsonl", "manifest.json", "started.json", ".hidden"])
def test_an_output_may_have_any_name(files: Path, name: str) -> None:
    done(*select(output="plain.jsonl"))
    done(*select(output=name))
    assert (files / name).read_bytes() == (files / "plain.jsonl").read_bytes()
    assert "up to date" in done(*select(output=name)).stderr


def test_the_name_of_an_output_that_was_moved_away_is_free(files: Path) -> None:
    done(*select())
    (files / "picked.jsonl").rename("kept.jsonl")
    done(*select("--budget", 6))
    assert len(rows(files / "picked.jsonl")) == 6


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
    "no id": (
        lambda: Path("P.jsonl").write_text('{"response_a": 0, "response_b": 1}\n'),
        (),
        "line 1 has no `pair_id`",
    ),
    "no json": (lambda: Path("P.jsonl").write_text("{\n"), (), "is not JSON"),
    "empty": (lambda: Path("P.jsonl").write_text(""), (), "holds no rows"),
    "budget": (None, ("--budget", PAIRS + 1), "only 48 of P.jsonl can be chosen"),
    "prompts": (None, ("--budget", 17, "--max-per-prompt", 1), "only 16"),
    "ridge": (None, ("--set", "select.methods.activedpo.ridge=0"), "λ must be a positive number, not 0"),
    "negative ridge": (None, ("--set", "select.methods.activedpo.ridge=-0.1"), "λ must be a positive number, not -0.1"),
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
        (select("--set", "select.methods.activedpo.rigde=1"), "rigde"),
        (select("--budget", 0), "select.budget"),
        (select("--output", "P.jsonl"), "is one of the files to be read"),
        (select("--output", "."), "is a folder"),
    ],
)
def test_wrong_words_are_refused(files: Path, words: tuple[object, ...], said: str) -> None:
    message = refused(2, *(words if words[0] == "select" else ("select", *words)))
    assert said in message
    assert not (files / "picked.jsonl").exists()


def test_a_method_that_needs_more_than_features_is_refused(files: Path) -> None:
    said = refused(2, *select("--method", "aplp"))
    assert "method `aplp` needs logps, ref_logps" in said
    assert "all that can be used here: activedpo, badge, k-center, largest-norm, random" in said


def straight(output: str, *words: object) -> list[dict[str, Any]]:
    """The picks without any interruption."""
    done(*select(*words, output=output))
    return rows(Path(output))


@pytest.mark.parametrize("memory", [1, 1e-9])
@pytest.mark.parametrize("scale", [1, 1000])
def test_a_killed_choice_goes_on_after_its_picks_to_the_same_bytes(
    files: Path, zygote: Zygote, memory: float, scale: float
) -> None:
    """Killed in the middle by a signal that nothing can catch, in memory or in passes; large features take exact looks."""
    generator = torch.Generator().manual_seed(1)
    save_file({"features": torch.randn(RESPONSES, DIM, generator=generator) * scale}, "F.safetensors")
    budget = (
        "--budget",
        12,
        "--memory",
        memory,
        "--labelled",
        "L.safetensors",
        "--set",
        "select.methods.activedpo.ridge=1e-4",
    )
    log = files / ".resumed.jsonl.made" / "picks.jsonl"
    status = zygote.stop_when(
        select(*budget, "--quiet", output="resumed.jsonl"),
        files,
        lambda: log.exists() and log.read_bytes().count(b"\n") >= 4,
        signal.SIGKILL,
        slowed="activedpo_cli.select.from_files.choice:PickLog.add",
    )
    assert status == -signal.SIGKILL
    kept = log.read_bytes().count(b"\n")
    assert 3 <= kept < 12
    assert not (files / "resumed.jsonl").exists()
    with log.open("ab") as stream:
        stream.write(b'{"row": 3')  # a torn line
    assert f"goes on after {kept} picks" in done(*select(*budget, output="resumed.jsonl")).stderr
    assert not log.exists()
    straight("straight.jsonl", *budget)
    assert (files / "resumed.jsonl").read_bytes() == (files / "straight.jsonl").read_bytes()


def interrupted_after(picks: int, monkeypatch: pytest.MonkeyPatch, *words: object) -> str:
    """Ctrl-C once so many picks were made; what was said."""
    from activedpo_cli.select.from_files.choice import PickLog

    made = []
    add = PickLog.add

    def interrupt(self: PickLog, pick: object) -> None:
        if len(made) == picks:
            raise KeyboardInterrupt
        made.append(pick)
        add(self, pick)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(PickLog, "add", interrupt)
        result = activedpo(*words)
    assert result.exit_code == 130
    return result.stderr


@pytest.mark.parametrize("memory", [1, 1e-9])
def test_an_interrupted_choice_says_what_is_kept(files: Path, memory: float, monkeypatch: pytest.MonkeyPatch) -> None:
    words = select("--memory", memory)
    assert "nothing was picked yet\ngo on with `" in interrupted_after(0, monkeypatch, *words)
    assert not list(files.glob(".picked*"))
    assert "4 picks are kept\ngo on with `" in interrupted_after(4, monkeypatch, *words)
    assert "goes on after 4 picks" in done(*words).stderr
    assert rows(files / "picked.jsonl") == straight("straight.jsonl", "--memory", memory)


def test_an_interrupted_choice_of_another_method_begins_anew(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.select.methods import k_center

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(k_center, "choose", interrupt)
    result = activedpo(*select("--method", "k-center"))
    assert result.exit_code == 130
    assert "nothing was picked yet" in result.stderr


def test_picks_of_another_choice_are_not_continued(files: Path) -> None:
    """Neither those of this version nor those that an earlier one left."""
    (files / ".picked.jsonl.picks").write_text('{"choice": {}}\n{"row": 1, "score": 2.0, "exactly": false}\n')
    result = done(*select("--memory", 1e-5))
    assert "goes on" not in result.stderr
    assert not (files / ".picked.jsonl.picks").exists()
    assert rows(files / "picked.jsonl")[0]["pair_id"] == by_hand(False, 0.1, 1)[0][0]


DAMAGE = {
    "repeated": lambda lines: [*lines[:4], lines[2], *lines[4:]],
    "middle": lambda lines: [*lines[:2], b'{"row": 3', *lines[3:]],
    "no object": lambda lines: [*lines[:2], b"7", *lines[3:]],
    "no row": lambda lines: [*lines[:2], b'{"row": 900, "score": 1.0, "exactly": false}'],
    "negative": lambda lines: [*lines[:2], b'{"row": -1, "score": 1.0, "exactly": false}'],
    "other score": lambda lines: [*lines[:2], lines[2].replace(b'"score": ', b'"score": 1')],
    "nan": lambda lines: [*lines[:2], b'{"row": 3, "score": NaN, "exactly": false}'],
    "deep": lambda lines: [*lines[:2], b"[" * 100_000],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_log_is_begun_anew(files: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = select("--memory", 1e-5)
    interrupted_after(5, monkeypatch, *words)
    log = files / ".picked.jsonl.made" / "picks.jsonl"
    log.write_bytes(b"\n".join(DAMAGE[damage](log.read_bytes().splitlines())) + b"\n")
    done(*words)
    assert not log.exists()
    picked = rows(files / "picked.jsonl")
    assert len({line["pair_id"] for line in picked}) == 7
    assert picked == straight("straight.jsonl", "--memory", 1e-5)


def test_one_process_at_a_time_makes_an_output(files: Path) -> None:
    """Also where it is named by another path."""
    from activedpo_cli.store.lock import exclusive

    (files / "link").symlink_to(files)
    with exclusive(files / ".locks" / "picked.jsonl.lock", "picked.jsonl"):
        for output in ("picked.jsonl", "link/picked.jsonl"):
            assert f"process {os.getpid()} on" in refused(75, *select(output=output))
        done(*select(output="other.jsonl"))
    done(*select())


def change(name: str) -> None:
    """Other content under the same name, of the same size."""
    path = Path(name)
    data = bytearray(path.read_bytes())
    if name.endswith("jsonl"):
        path.write_bytes(bytes(data).replace(b'"response_a": 1,', b'"response_a": 2,'))
        assert path.read_bytes() != bytes(data)
    else:
        data[-1] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("name", ["shards/1.safetensors", "P.jsonl", "L.safetensors"])
def test_files_that_were_edited_in_place_are_noticed(files: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a finished output, and beside the picks of an interrupted choice."""
    from safetensors.torch import load_file

    Path("shards").mkdir()
    for number, part in enumerate(load_file("F.safetensors")["features"].split(25)):
        save_file({"features": part.clone()}, f"shards/{number}.safetensors")
    write_pairs([(1, 30), (5, 7), (8, 40), (3, 50), (9, 20), (11, 44), (15, 33), (17, 52)])
    words = select("--features", "shards", "--labelled", "L.safetensors", "--memory", 1e-9, "--budget", 4)
    interrupted_after(3, monkeypatch, *words)
    change(name)
    assert "goes on" not in done(*words).stderr
    change_back = Path(name).read_bytes()
    if name.endswith("jsonl"):
        Path(name).write_bytes(change_back.replace(b'"response_a": 2,', b'"response_a": 1,'))
    else:
        change(name)
    said = {"s": "input features/", "P": "input pairs", "L": "input labelled"}[name[0]]
    assert said in refused(3, *words)


@pytest.mark.parametrize("memory", [1, 1e-9])
def test_at_most_so_many_pairs_of_a_prompt_whatever_the_memory(files: Path, memory: float) -> None:
    """The longest differences all belong to one prompt."""
    features = torch.eye(RESPONSES)
    features[:3] *= 100
    save_file({"features": features}, "F.safetensors")
    write_pairs([(0, 3), (1, 4), (2, 5), *((place, place + 1) for place in range(6, 50))])
    limited = straight("limited.jsonl", "--memory", memory, "--max-per-prompt", 1, "--budget", 5)
    prompts = [int(line["pair_id"].split()[1]) // 3 for line in limited]
    assert prompts[0] == 0
    assert len(set(prompts)) == 5
    free = straight("free.jsonl", "--memory", memory, "--budget", 5)
    assert {line["pair_id"] for line in free[:3]} == {"pair 0", "pair 1", "pair 2"}


def test_numbers_whose_squares_overflow_are_refused_where_they_are_squared(files: Path) -> None:
    features = torch.randn(RESPONSES, DIM, dtype=torch.float64)
    features[4, 2] = -1e200
    save_file({"features": features}, "F.safetensors")
    write_pairs([(place, place + 1) for place in range(20)])
    message = refused(4, *select("--memory", 1e-9))
    assert "row 4 of `features` of F.safetensors holds 1e+200, whose square is too large" in message
    assert not list(files.glob(".picked*"))
    done(*select("--set", "select.normalise=response"))
    save_file({"features": features[5:]}, "F.safetensors")
    save_file({"pair_features": features[:5]}, "L.safetensors")
    assert "row 4 of `pair_features`" in refused(
        4, *select("--labelled", "L.safetensors", "--set", "select.normalise=response", output="other.jsonl")
    )


@pytest.mark.parametrize("method", ["activedpo", "k-center", "largest-norm"])
def test_rows_that_no_pair_uses_are_not_checked(files: Path, method: str) -> None:
    """So that leaving the pairs of a broken response out helps, as the hint says."""
    spoil_features(float("nan"))
    write_pairs([(place, place + 1) for place in range(30, 50)])
    message = refused(4, *select("--method", method, "--memory", 1e-9))
    assert "row 41" in message
    assert "leave the pairs with that response out" in message
    write_pairs([(place, place + 1) for place in range(30, 40)])
    done(*select("--method", method))


def test_a_broken_labelled_pair_is_called_a_pair(files: Path) -> None:
    save_file({"pair_features": torch.full((4, DIM), torch.nan)}, "L.safetensors")
    assert "hint: leave that pair out" in refused(4, *select("--labelled", "L.safetensors"))


@pytest.mark.parametrize(
    ("scale", "normalise", "warned"), [(1, "response", True), (1, "none", False), (0.1, "response", False)]
)
def test_labelled_pairs_that_were_not_normalised_are_warned_of(
    files: Path, scale: float, normalise: str, warned: bool
) -> None:
    save_file({"pair_features": torch.full((4, DIM), 1.0) * scale}, "L.safetensors")
    said = done(*select("--labelled", "L.safetensors", "--set", f"select.normalise={normalise}")).stderr
    assert ("row 0 of `pair_features` of L.safetensors has the length 3.464" in said) == warned
    assert ("differences of normalised responses" in said) == warned


def test_a_pair_of_one_response_is_refused(files: Path) -> None:
    write_pairs([(0, 1), (2, 2)])
    assert "P.jsonl line 2: `response_a` and `response_b` are both 2" in refused(4, *select("--budget", 1))


def test_the_same_two_responses_under_several_names_are_warned_of(files: Path) -> None:
    write_pairs([(0, 1), (1, 0), (2, 3), (0, 1)])
    assert "2 pairs have the two responses of another pair" in done(*select("--budget", 1)).stderr


@pytest.mark.parametrize("method", ["activedpo", "largest-norm", "k-center"])
@pytest.mark.parametrize("memory", [1, 1e-9])
def test_picks_without_any_difference_are_warned_of(files: Path, method: str, memory: float) -> None:
    features = torch.ones(RESPONSES, DIM)
    features[0, 0] = 3
    save_file({"features": features}, "F.safetensors")
    write_pairs([(0, 1), (1, 2), (2, 3)])
    said = done(*select("--budget", 3, "--method", method, "--memory", memory)).stderr
    assert "2 of 3 picks have responses of equal features" in said
    write_pairs([(0, 1), (1, 2)])
    assert "equal features" not in done(*select("--budget", 1, "--method", method, output="other.jsonl")).stderr


def test_a_name_and_the_same_number_are_one_name(files: Path) -> None:
    lines = [{"pair_id": 1, "response_a": 0, "response_b": 1}, {"pair_id": "1", "response_a": 2, "response_b": 3}]
    Path("P.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert 'P.jsonl line 2: `pair_id` "1" is there already' in refused(4, *select("--budget", 1))


def test_random_reads_no_features(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.base.tensor_rows import TensorRows

    def read(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(TensorRows, "read", read)
    monkeypatch.setattr(TensorRows, "take", read)
    said = done(*select("--method", "random", "--memory", 1e-9)).stderr
    assert "memory" not in said


def test_largest_norm_is_streamed_in_one_pass(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = straight("here.jsonl", "--method", "largest-norm", "--max-per-prompt", 1)
    monkeypatch.setattr("activedpo_cli.select.methods.largest_norm.choose", None)
    result = done(*select("--method", "largest-norm", "--memory", 1e-5, "--max-per-prompt", 1, output="there.jsonl"))
    assert "read in 1 pass\n" in result.stderr
    assert [line["pair_id"] for line in rows(files / "there.jsonl")] == [line["pair_id"] for line in here]


@pytest.mark.parametrize("method", ["k-center", "badge"])
def test_a_method_that_can_not_be_streamed_says_what_it_takes(files: Path, method: str) -> None:
    said = done(*select("--method", method, "--memory", 1e-5)).stderr
    assert f"method `{method}` holds all pairs in memory, whatever --memory says: about 1.2e-05 GB" in said
    assert "memory" not in done(*select("--method", method, "--memory", 1, output="other.jsonl")).stderr


def test_the_memory_decides_by_what_is_taken_in_memory(files: Path) -> None:
    """18 bytes for each number of φ, and 2 for features in half precision, however they are normalised."""
    taken = 18 * PAIRS * DIM + 2 * RESPONSES * DIM
    for number, unit in enumerate(((), ("--set", "select.normalise=response"))):
        assert "pass" not in done(*select("--memory", (taken + 1) / 1e9, *unit, output=f"{number}.jsonl")).stderr
        assert "pass" in done(*select("--memory", (taken - 1) / 1e9, *unit, output=f"{number}-in-passes.jsonl")).stderr


@pytest.mark.parametrize("normalise", ["none", "response", "pair"])
def test_a_choice_in_memory_takes_no_more_than_it_counts(
    tmp_path: Path, normalise: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the storages that are alive at once; beside it are a few numbers of each pair, and parts that are read at once."""
    monkeypatch.setattr("activedpo_cli.pairs.pair_features.CHUNK_BYTES", 2**15)
    monkeypatch.setattr("activedpo_cli.select.design.greedy.CHUNK_BYTES", 2**15)
    responses, pairs, dim = 500, 900, 64
    save_file({"features": torch.randn(responses, dim).half()}, tmp_path / "F.safetensors")
    row_a = torch.arange(pairs) % responses
    listed = PairList(row_a, (row_a + 1 + torch.arange(pairs) // responses) % responses, None, b"", torch.zeros(0))
    table = CandidateFiles(TensorRows(tmp_path / "F.safetensors", "features"), torch.zeros(0, dim).double(), listed)
    config = build_config(nested({"select.normalise": normalise, "select.budget": 40}))
    log = PickLog(tmp_path / ".picks")
    peak = peak_memory(lambda: choose(config, table, 10**9, log, SilentProgress()), torch.device("cpu"))
    assert dim * 8 * pairs < peak < table.bytes_in_memory() + 100 * pairs + 6 * 2**15


def as_an_earlier_version_left_it(output: Path) -> None:
    """Its record and its picks lay beside the output, with `select.activedpo.ridge` and digests without a prefix."""
    folder = output.with_name(f".{output.name}.made")
    name = "manifest.json" if (folder / "manifest.json").exists() else "started.json"
    made = json.loads((folder / name).read_bytes())
    record = {
        "schema": 2,
        "settings": {key.replace("select.methods.", "select."): value for key, value in made["settings"].items()},
        "inputs": {key: made["inputs"].get(key, "").removeprefix("sha256:") or None for key in INPUTS},
    }
    if name == "manifest.json":
        record |= {"output": made["outputs"][output.name]["sha256"], "summary": made["summary"]}
        output.with_name(f"{output.name}.made.json").write_text(json.dumps(record, indent=2))
    else:
        head = json.dumps({"choice": record}, sort_keys=True).encode() + b"\n"
        output.with_name(f".{output.name}.picks").write_bytes(head + (folder / "picks.jsonl").read_bytes())
    shutil.rmtree(folder)


INPUTS = ("features", "pairs", "labelled")


def test_what_an_earlier_version_left_is_understood(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished choice is up to date, and nothing is written; an unfinished one goes on after its picks."""
    words = select("--ridge", 0.25)
    done(*words)
    as_an_earlier_version_left_it(files / "picked.jsonl")
    before = {path.name: path.stat().st_mtime_ns for path in files.iterdir()}
    assert "is up to date" in done(*words).stderr
    assert "select.methods.activedpo.ridge  0.25 → 0.5" in refused(3, *select("--ridge", 0.5))
    assert {path.name: path.stat().st_mtime_ns for path in files.iterdir()} == before
    again = select("--ridge", 0.25, "--memory", 1e-9, output="again.jsonl")
    interrupted_after(3, monkeypatch, *again)
    as_an_earlier_version_left_it(files / "again.jsonl")
    assert "goes on after 3 picks" in done(*again).stderr
    assert rows(files / "again.jsonl") == rows(files / "picked.jsonl")
    done(*select("--ridge", 0.5, "--force"))
    assert not list(files.glob("*.made.json"))


def test_memory_without_a_limit(files: Path) -> None:
    assert "pass" not in done(*select("--memory", "inf")).stderr
    assert activedpo(*select("--memory", "nan", output="other.jsonl")).exit_code == 2


def test_reads_beside_passes_are_counted(files: Path) -> None:
    found = json.loads(done(*select("--memory", 1e-9, "--json")).stdout)["summary"]
    beside = found["pairs_read"] - found["passes"] * PAIRS
    assert beside > 0
    result = done(*select("--memory", 1e-9))
    assert f"read in {found['passes']} passes and {beside} more reads of a pair" in result.stderr


def test_a_choice_in_memory_shows_its_picks(files: Path) -> None:
    from activedpo_cli.select.from_files.command import FilesRequest, do_files_choice

    class Told(SilentProgress):
        label, told = "", []

        def start(self, label: str, total: int, unit: str, done: int = 0) -> None:
            self.label, self.total = label, total

        def advance(self, amount: int = 1) -> None:
            if "choosing" in self.label:
                self.told.append(amount)

    progress = Told()
    paths = Path("F.safetensors"), Path("P.jsonl"), None, Path("picked.jsonl")
    do_files_choice(FilesRequest(*paths, {"select.budget": 6}, 10**9, False), progress)
    assert (progress.label, progress.total, progress.told) == ("choosing by activedpo", 6, [1] * 6)


def test_a_header_of_nested_lists_is_no_header(files: Path) -> None:
    text = b"[" * 100_000
    Path("F.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    assert "not a whole safetensors file" in refused(4, *select())


def test_lines_say_what_they_lack_and_where_they_break(files: Path) -> None:
    with Path("P.jsonl").open("a") as stream:
        stream.write('{"pair_id": "x", "response_a": 1, "b": 2}\n')
    assert f"P.jsonl line {PAIRS + 1} has no `response_b`; it has `pair_id`, `response_a`, `b`" in refused(4, *select())
    Path("P.jsonl").write_text('{"pair_id": "x"\n')
    assert "P.jsonl line 1, column 16 is not JSON" in refused(4, *select())


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("-", "--output needs a file"),
        ("shards/0.safetensors", "is one of the files to be read"),
        ("P.jsonl/picked.jsonl", "since P.jsonl is a file"),
        ("P.jsonl/deeper/picked.jsonl", "since P.jsonl is a file"),
    ],
)
def test_outputs_that_can_not_be_are_refused_before_anything_is_read(files: Path, output: str, said: str) -> None:
    Path("shards").mkdir()
    Path("F.safetensors").rename("shards/0.safetensors")
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    words = ("--features", "shards", "--pairs", "P.jsonl", "--force")
    assert said in refused(2, *select(*words, output=output)).replace(f"{files}/", "")
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


def test_shards_are_ordered_as_people_number_them(files: Path) -> None:
    from safetensors.torch import load_file

    whole = straight("whole.jsonl")
    Path("shards").mkdir()
    for number, part in enumerate(load_file("F.safetensors")["features"].split(5)):
        save_file({"features": part.clone()}, f"shards/part-{number}.safetensors")
    assert straight("parts.jsonl", "--features", "shards") == whole


def test_methods_that_can_be_used_are_named(files: Path) -> None:
    message = refused(2, *select("--method", "apo"))
    assert "needs hidden" in message
    assert "all that can be used here: activedpo, badge, k-center, largest-norm, random" in message
