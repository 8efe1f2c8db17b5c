"""A method's own settings stand under `select.methods`; as older versions spelled them, they mean the same."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import activedpo, done, manifest, on, refused

from activedpo_cli.base.config import build_config, nested, parse_assignment, parse_config, with_changes
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import Config, current_key
from activedpo_cli.experiments.spec import ExperimentSpec, arms_of
from activedpo_cli.select.method_settings import method_settings
from activedpo_cli.store.manifest import digest_of

OLDER, NOW = "select.activedpo.ridge", "select.methods.activedpo.ridge"


def test_only_a_methods_own_settings_are_spelled_otherwise() -> None:
    assert current_key(OLDER) == current_key(NOW) == NOW
    for key in ("seed", "select.budget", "select.ridge", "select.methods.apo.greedy", "select.method.x", "train.a.b"):
        assert current_key(key) == key


@pytest.mark.parametrize("key", [OLDER, NOW])
def test_both_spellings_are_one_setting(key: str) -> None:
    expected = build_config({"select": {"methods": {"activedpo": {"ridge": 7}}}})
    assert build_config(nested({key: 7})) == with_changes(Config(), {key: 7}) == expected
    assert parse_config("select:\n  activedpo: {ridge: 7}\n") == expected
    assert with_changes(expected, {key: 8}).select.methods == {"activedpo": {"ridge": 8}}
    assert parse_assignment(f"{key}=7") == (NOW, 7)
    assert method_settings(expected).model_dump() == {"ridge": 7}
    spec = ExperimentSpec(title="t", arms={"a": {key: 1}}, settings={key: 2}, grid={key: [3, 4]}, seeds=[0])
    assert [settings[NOW] for settings in arms_of(spec).values()] == [3, 4]


def test_sections_of_both_kinds_are_read_together_and_a_setting_given_twice_is_refused() -> None:
    both = parse_config("select:\n  apo: {ridge: 1}\n  methods: {apo: {greedy: true}, adpo: {ridge: 2}}\n")
    assert both.select.methods == {"apo": {"ridge": 1, "greedy": True}, "adpo": {"ridge": 2}}
    with pytest.raises(UsageError) as caught:
        parse_config("select:\n  apo: {ridge: 1}\n  methods: {apo: {ridge: 1}}\n")
    assert "`apo.ridge` and `methods.apo.ridge` are one setting, given twice" in caught.value.details[0]


@pytest.mark.parametrize("text", ["activdpo: {ridge: 1}", "methods: {activdpo: {ridge: 1}}"])
def test_the_nearest_method_is_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_config(f"select:\n  {text}\n")
    assert "did you mean `activedpo`?" in caught.value.details[0]


def as_an_older_version_left_it(run: Path) -> None:
    """The same run with the older spelling in `config.yaml` and in the records, whose checksums are right."""
    config = run / "config.yaml"
    lines = [line for line in config.read_text().splitlines() if not line.startswith("  methods:")]
    at = lines.index(next(line for line in lines if line.startswith("  history:")))
    config.write_text("\n".join([*lines[: at + 1], "  activedpo:", "    ridge: 0.1", *lines[at + 1 :]]) + "\n")
    facts: dict[str, Any] = json.loads((run / "run.json").read_text())
    facts["config_settings"] -= 1
    facts["checksum"] = digest_of({key: value for key, value in facts.items() if key != "checksum"})
    (run / "run.json").write_text(json.dumps(facts, indent=2) + "\n")
    for path in run.glob("iter-*/select/manifest.json"):
        record: dict[str, Any] = json.loads(path.read_text())
        record["settings"] = {key.replace("select.methods.", "select."): v for key, v in record["settings"].items()}
        assert OLDER in record["settings"]
        record["checksum"] = digest_of({key: value for key, value in record.items() if key != "checksum"})
        path.write_text(json.dumps(record, indent=2) + "\n")


@pytest.fixture
def older(finished: Path) -> Path:
    as_an_older_version_left_it(finished)
    return finished


def test_a_run_of_an_older_version_is_as_complete_as_before(older: Path, finished_original: Path) -> None:
    stages = json.loads(done(*on(older, "status"), "--json").stdout)["iterations"]
    for row in stages:
        found = row["stages"]["select"]
        assert (found["notes"], found["reasons"]) == ([], [])
    for words in ((), ("--ridge", 0.1), ("--set", f"{OLDER}=0.1"), ("--set", f"{NOW}=0.1")):
        assert "up to date" in done(*on(older, "select", iteration=2), *words).stderr
    assert f"{NOW}  0.1 → 3" in refused(3, *on(older, "select", iteration=2), "--set", f"{OLDER}=3")
    assert activedpo(*on(older, "verify")).exit_code == activedpo(*on(finished_original, "verify")).exit_code == 0


def test_a_changed_setting_stays_where_an_older_config_has_it(older: Path) -> None:
    done(*on(older, "select", iteration=2), "--force", "--ridge", 0.25, "--quiet")
    text = (older / "config.yaml").read_text()
    assert "  activedpo:\n    ridge: 0.25\n" in text
    assert "\n  methods:" not in text
    assert manifest(older, 2, "select")["settings"][NOW] == 0.25
