"""A run stays in its folder, whatever its records or links say, and a secret stays out of it."""

import json
import re
from pathlib import Path

import pytest
from command_line import STAGES, activedpo, done, on, refused, snapshot

OUTSIDE = ["../../../../etc/passwd", "/etc/passwd", "a/../../b", "..", ""]


@pytest.mark.parametrize(
    "place", ["prompts.jsonl", "iter-001/generate", "iter-002/train/adapter", ".locks", "reference"]
)
def test_links_inside_a_run(finished: Path, tmp_path: Path, place: str) -> None:
    """Out of the run or within it: what one command writes or sweeps through a link is nobody's."""
    path = finished / place
    if place == ".locks":
        path.mkdir(exist_ok=True)
    elsewhere = tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    before = snapshot(tmp_path)
    for words in (("report", finished), *(on(finished, command) for command in ("status", "show", "run", *STAGES))):
        message = refused(4, *words)
        assert f"`{path}` is a symbolic link" in message
    assert snapshot(tmp_path) == before


def test_a_link_to_a_lock(finished: Path, tmp_path: Path) -> None:
    """Taking a lock would empty the file that the link names."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (finished / ".locks").mkdir(exist_ok=True)
    lock = finished / ".locks" / "iter-002-evaluate.lock"
    lock.unlink(missing_ok=True)
    lock.symlink_to(victim)
    refused(4, *on(finished, "evaluate", iteration=2), "--force")
    assert victim.read_text() == "mine"


def test_a_run_that_lies_elsewhere(finished: Path, tmp_path: Path) -> None:
    """The link is the person's own: they named it."""
    link = tmp_path / "linked"
    link.symlink_to(finished)
    done(*on(link, "status"))
    assert "up to date" in done(*on(link, "evaluate", iteration=2)).stderr
    done(*on(link, "select", iteration=2), "--force", "--quiet")
    assert link.is_symlink()


def test_the_hundredth_run_is_looked_at_quickly(tmp_path: Path) -> None:
    """Links are looked for before each command."""
    import time

    from activedpo_cli.store.links import refuse_links

    for number in range(5000):
        folder = tmp_path / f"iter-{number // 500:03d}" / "generate"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"responses-{number:05d}.jsonl").touch()
    began = time.perf_counter()
    refuse_links(tmp_path)
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_manifest_that_names_a_file_elsewhere(finished: Path, name: str) -> None:
    path = finished / "iter-002" / "generate" / "manifest.json"
    record = json.loads(path.read_bytes())
    record["outputs"][name] = next(iter(record["outputs"].values()))
    path.write_text(json.dumps(record))
    for stage in ("generate", "featurize"):
        message = refused(4, *on(finished, stage, iteration=2))
        assert "iter-002/generate/manifest.json" in message
        assert "leads out of the stage's folder" in message


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_reference_that_lies_elsewhere(finished: Path, name: str) -> None:
    path = finished / "reference" / "base.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"stored_in_run": True, "path": name}))
    message = refused(4, *on(finished, "generate", iteration=3))
    assert "reference/base.json` is damaged" in message
    assert "leads out of the run" in message


def test_a_reference_that_names_files_elsewhere(finished: Path) -> None:
    path = finished / "reference" / "base.json"
    record = json.loads(path.read_bytes())
    record["files"]["../../etc/passwd"] = {"bytes": 1, "sha256": "0"}
    path.write_text(json.dumps(record))
    assert "does not lie in the model's folder" in refused(4, *on(finished, "generate", iteration=3))


@pytest.mark.parametrize("field", ["response_a_id", "prompt_id"])
def test_ids_are_no_paths(finished: Path, field: str) -> None:
    path = finished / "iter-002" / "select" / "selection.jsonl"
    rows = [json.loads(line) | {field: "../../../etc/passwd"} for line in path.read_bytes().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = activedpo(*on(finished, "label", iteration=2), "--force")
    assert result.exit_code == 4
    assert "root:" not in result.output


NAMES = ["..", "a b", "-rf", ".hidden", "~root", "a\nb", "a\x1b[31mb", "a\u202eb", "x" * 65, "é", "*", "a;b", "$(id)"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (("init", f"--run={name}"), ("status", f"--run={name}"), ("run", f"--run=runs/{name}")):
        message = refused(2, *words)
        assert "is not a name for a run" in message
        assert not re.search("[\x1b\u202e]", message)
    assert not any(tmp_path.iterdir())


def test_the_working_directory_as_a_run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished)
    assert done("status", "--run", ".").stdout == done("status", "--run", finished).stdout
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    done("init", "--run", ".", "--quiet")
    assert (tmp_path / "empty" / "run.json").is_file()


SECRETS = {
    "hub": "hf_" + "Ab1" * 11 + "x",
    "key": "sk-proj-" + "a1B2" * 8,
    "url": "https://somebody:swordfish1@example.com/model",
    "header": "Bearer abcdef123456789",
    "variable": "a word that only HF_TOKEN knows",
}
OF_SECRETS = re.compile("Ab1Ab1|a1B2a1B2|swordfish|abcdef1234|only HF_TOKEN knows")


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRETS["variable"])


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("key", ["model.name", "label.oracle", "select.methods.activedpo.note", "generate.responses"])
def test_settings_hold_no_secrets(token: None, new_run: Path, kind: str, key: str) -> None:
    """They would stand in config.yaml, in every manifest, and in the report."""
    before = snapshot(new_run)
    message = refused(2, *on(new_run, "run"), "--set", f"{key}={SECRETS[kind]}")
    assert f"`{key}` holds what looks like a token" in message
    assert "HF_TOKEN" in message
    assert not OF_SECRETS.search(message.replace("HF_TOKEN", ""))
    assert snapshot(new_run) == before


def test_settings_edited_by_hand_hold_none_either(new_run: Path) -> None:
    path = new_run / "config.yaml"
    path.write_text(path.read_text().replace("name: ", f"name: {SECRETS['hub']}  # ", 1))
    message = refused(2, *on(new_run, "generate"))
    assert "config.yaml" in message
    assert not OF_SECRETS.search(message)


@pytest.mark.parametrize(
    "word",
    [
        "sk-learn-models/task-12345678",
        "/data/task-0123456789abcdef",
        "hf_models/gemma",
        "disk-1/mask-r-cnn-0123456",
        "bearer",
    ],
)
def test_ordinary_names_are_no_secrets(new_run: Path, word: str) -> None:
    done(*on(new_run, "status"))
    message = refused(4, *on(new_run.with_name("other"), "init"), "--model", "tiny", "--prompts", f"{word}.jsonl")
    assert f"{word}.jsonl" in message


@pytest.mark.parametrize("kind", SECRETS)
def test_what_was_typed_is_recorded_without_secrets(
    token: None, tmp_path: Path, small_model: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    words = [*on(tmp_path / "run", "init"), "--model", small_model, "--prompts", prompts_file, "--eval-prompts", 4]
    monkeypatch.setattr("sys.argv", ["activedpo", *map(str, words), f"--note={SECRETS[kind]}"])
    done(*words)
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or not OF_SECRETS.search(path.read_bytes().decode("latin-1"))
    note = json.loads((tmp_path / "run" / "run.json").read_bytes())["command"][-1]
    assert note in ("--note=***", "--note=https://***@example.com/model")


@pytest.mark.parametrize("kind", SECRETS)
def test_errors_of_libraries_tell_no_secrets(
    token: None, tmp_path: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The hub's client names the request that failed, with what was sent along."""

    def fail(*words: object, **more: object) -> None:
        raise ConnectionError(
            f"401 for url {SECRETS[kind]} with headers {{'authorization': 'Bearer {SECRETS['hub']}'}}"
        )

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    words = (*on(tmp_path / "run", "init"), "--model", "org/none", "--prompts", prompts_file, "--eval-prompts", 4)
    message = refused(1, *words)
    assert "401 for url" in message
    assert not OF_SECRETS.search(message)


def test_unforeseen_errors_tell_no_secrets(token: None, finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from activedpo_cli.cli.app import app

    def fail(*words: object) -> None:
        raise RuntimeError(f"{SECRETS['variable']} {SECRETS['key']}\n\x1b[31m[/x] \u202e")

    monkeypatch.setattr("activedpo_cli.run.status.run_status", fail)
    result = CliRunner().invoke(app, ["status", "--run", str(finished)])
    assert result.exit_code == 1
    assert "this is a bug" in result.stderr
    assert not OF_SECRETS.search(result.output)
    assert not re.search("[\x1b\u202e]", result.output)


def test_what_a_run_of_an_experiment_failed_of_tells_no_secrets(
    token: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("title: t\narms: [random]\nseeds: [0]\niterations: 1\nsettings: {model.name: '${HF_TOKEN}'}\n")
    result = activedpo("experiment", spec, "--output", tmp_path / "out")
    assert result.exit_code != 0
    assert not OF_SECRETS.search(result.output.replace("HF_TOKEN", ""))
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or not OF_SECRETS.search(path.read_text())
