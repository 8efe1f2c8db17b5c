"""Chat templates, from the command line: what the model reads before it answers."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from command_line import done, manifest, on, refused, rows
from small_models import CHAT_TEMPLATE, byte_tokenizer, save_small_model
from small_runs import small_run
from transformers.utils import chat_template_utils

from activedpo_cli.models import encoding

CLOCK = "{{ strftime_now('%d %b %Y %H:%M') }}\n" + CHAT_TEMPLATE
TOKENIZER = byte_tokenizer("bytes-chat")


def model_with(folder: Path, template: str) -> Path:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = template
    return save_small_model(folder, tokenizer=tokenizer)


def read_by_the_model(folder: Path) -> dict[str, str]:
    found = [row for path in sorted(folder.glob("responses-*.jsonl")) for row in rows(path)]
    return {row["response_id"]: TOKENIZER.decode(row["prompt_token_ids"]) for row in found}


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def to_year(year: int) -> None:
        class Clock:
            @staticmethod
            def now() -> datetime:
                return datetime(year, 1, 1)

        monkeypatch.setattr(chat_template_utils, "datetime", Clock)

    return to_year


def test_prompts_are_the_same_on_any_day(tmp_path: Path, prompts_file: Path, set_clock: Callable[[int], None]) -> None:
    model = model_with(tmp_path / "model", CLOCK)
    found = []
    for year in (2026, 2031):
        set_clock(year)
        run = small_run(tmp_path / str(year), model, prompts_file)
        done(*on(run, "generate"), "--quiet")
        found.append(read_by_the_model(run / "iter-001" / "generate"))
    assert found[0] == found[1]
    assert all(text.startswith("26 Jul 2024 00:00\n") for text in found[0].values())
    assert manifest(run, 1, "generate")["settings"]["prompts.template_date"] == "26 Jul 2024"


def test_the_date_is_a_setting_of_the_run(tmp_path: Path, prompts_file: Path) -> None:
    model = model_with(tmp_path / "model", CLOCK)
    run = small_run(tmp_path / "run", model, prompts_file, prompts__template_date="05 Mar 2019")
    done(*on(run, "generate"), "--quiet")
    read = read_by_the_model(run / "iter-001" / "generate")
    assert all(text.startswith("05 Mar 2019 00:00\n") for text in read.values())
    assert "fixed" in refused(3, *on(run, "generate", iteration=1), "--set", "prompts.template_date=06 Mar 2019")
    words = ("init", "--run", tmp_path / "other", "--model", model, "--prompts", prompts_file)
    assert "26 Jul 2024" in refused(2, *words, "--set", "prompts.template_date=yesterday")


def test_later_evaluations_read_what_the_first_one_read(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would make other tokens of a prompt today, such as another version of a library."""
    shutil.rmtree(finished / "iter-002" / "evaluate")
    encode = encoding.encode_prompt
    monkeypatch.setattr(encoding, "encode_prompt", lambda *given, **named: [*encode(*given, **named), 33])
    result = done(*on(finished, "evaluate", iteration=2))
    assert "4 held-out prompts would be rendered otherwise" in result.stderr

    def tokens_of(folder: Path) -> dict[str, list[int]]:
        found = [json.loads(line) for path in folder.glob("responses-*") for line in path.read_text().splitlines()]
        return {row["prompt_id"]: row["prompt_token_ids"] for row in found}

    assert tokens_of(finished / "iter-002" / "evaluate") == tokens_of(finished / "reference" / "evaluate")


def test_prompts_that_an_earlier_version_dated_are_named(tmp_path: Path, prompts_file: Path) -> None:
    """Its record has no date. The run goes on; what it made is not made again for that."""
    run = small_run(tmp_path / "run", model_with(tmp_path / "model", CLOCK), prompts_file)
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    assert "asks for the date" not in done(*on(run, "generate", iteration=2)).stderr
    shutil.rmtree(run / "iter-002")
    path = run / "iter-001/generate/manifest.json"
    record = json.loads(path.read_text())
    del record["settings"]["prompts.template_date"], record["checksum"]
    path.write_text(json.dumps(record))
    said = done(*on(run, "generate", iteration=2)).stderr
    assert "so read the prompts of iteration 1; from now on it is 26 Jul 2024" in said
