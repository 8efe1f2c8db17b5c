"""Named sources follow the published schemas, and a hub out of reach is said clearly and soon."""

import time

import pytest

from activedpo_cli.base.discovery import available, load
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.prompts import _hub, tldr, webgpt

WEBGPT_ROWS = [
    {
        "question": {"dataset": "triviaqa", "id": "1", "full_text": "Which is the tallest tree?"},
        "quotes_0": {"title": [], "extract": []},
        "answer_0": "A redwood.",
        "tokens_0": {"prefix": [], "completion": []},
        "score_0": 0.5,
        "quotes_1": {"title": [], "extract": []},
        "answer_1": "An oak.",
        "tokens_1": {"prefix": [], "completion": []},
        "score_1": -0.5,
    },
    {"question": {"dataset": "eli5", "id": "2", "full_text": "Why is the sky blue?\n\nAnd red at dusk?"}},
    {"question": {"dataset": "triviaqa", "id": "1", "full_text": "Which is the tallest tree?"}},
]
TLDR_ROWS = [
    {"prompt": "SUBREDDIT: r/tea\n\nTITLE: Cold\n\nPOST: My tea gets cold.\n\nTL;DR:", "completion": " tea is cold"},
    {"prompt": "SUBREDDIT: r/cats\n\nTITLE: Cat\n\nPOST: It sleeps.\n\nTL;DR:", "completion": " cat sleeps"},
]


def test_the_sources_there_are():
    assert set(available("prompts")) >= {"tiny", "tldr", "webgpt"}
    assert all(available("prompts").values())
    assert all(callable(load("prompts", name).read) for name in ("tiny", "tldr", "webgpt"))


def test_webgpt_takes_each_question_once():
    found = list(webgpt.parse(WEBGPT_ROWS, "train"))
    assert [item.prompt for item in found] == [row["question"]["full_text"] for row in WEBGPT_ROWS[:2]]
    assert found[1].origin == "openai/webgpt_comparisons train row 2"


@pytest.mark.parametrize("row", [{}, {"question": "text"}, {"question": {"full_text": " "}}])
def test_webgpt_names_the_row_of_another_schema(row):
    with pytest.raises(InvalidDataError, match="train row 2"):
        list(webgpt.parse([WEBGPT_ROWS[0], row], "train"))


def test_tldr_takes_the_prompt_as_published():
    found = list(tldr.parse(TLDR_ROWS, "test"))
    assert [item.prompt for item in found] == [row["prompt"] for row in TLDR_ROWS]
    assert found[0].origin == "trl-lib/tldr test row 1"
    with pytest.raises(InvalidDataError, match="row 3"):
        list(tldr.parse([*TLDR_ROWS, {"post": "x"}], "test"))


@pytest.mark.parametrize(("source", "column"), [(tldr, "prompt"), (webgpt, "question")])
def test_sources_read_the_split_that_is_set(monkeypatch, source, column):
    asked = []
    monkeypatch.setattr(source, "load_rows", lambda *arguments: asked.append(arguments) or iter(()))
    assert list(source.read(PromptSettings(dataset_split="validation"))) == []
    assert asked == [(source.DATASET, "validation", column)]


def test_a_hub_out_of_reach_is_said_soon(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # the discard port: refused at once
    started = time.monotonic()
    with pytest.raises(InvalidDataError, match="hub cannot be reached to read the dataset owner/name") as caught:
        list(_hub.read_hub("owner/name", "train", "prompt"))
    assert time.monotonic() - started < 15
    assert caught.value.hint == "--prompts FILE.jsonl"


def test_an_impossible_dataset_name(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UsageError, match="no dataset id"):
        list(_hub.read_hub("a/b/c", "train", "prompt"))


class FakeTable:
    """Stands for a loaded split."""

    column_names = ("prompt", "completion")

    def select_columns(self, names):
        return [{name: row[name] for name in names} for row in TLDR_ROWS]


def test_rows_of_a_dataset_in_reach(monkeypatch):
    monkeypatch.setattr(_hub, "_reachable_revision", lambda dataset_id: "abc")
    monkeypatch.setattr("datasets.load_dataset", lambda *arguments, **options: FakeTable())
    found = list(_hub.read_hub("owner/name", "train", "prompt"))
    assert [item.prompt for item in found] == [row["prompt"] for row in TLDR_ROWS]
    assert found[1].origin == "owner/name train row 2"
    with pytest.raises(InvalidDataError, match="no column `text`"):
        list(_hub.read_hub("owner/name", "train", "text"))


def test_a_dataset_published_as_a_script_is_read_from_its_parquet_copy(monkeypatch):
    asked = []

    def load_dataset(dataset_id, *, split, revision):
        asked.append(revision)
        if revision == "abc":
            raise RuntimeError("Dataset scripts are no longer supported, but found name.py")
        return FakeTable()

    monkeypatch.setattr(_hub, "_reachable_revision", lambda dataset_id: "abc")
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    assert len(list(_hub.read_hub("owner/name", "train", "prompt"))) == 2
    assert asked == ["abc", "refs/convert/parquet"]


def test_a_split_that_cannot_be_read(monkeypatch):
    def load_dataset(*arguments, **options):
        raise ValueError('Unknown split "dev".\nShould be one of ["train"].')

    monkeypatch.setattr(_hub, "_reachable_revision", lambda dataset_id: "abc")
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(InvalidDataError, match="the split `dev` of the dataset owner/name") as caught:
        list(_hub.read_hub("owner/name", "dev", "prompt"))
    assert caught.value.details == ('ValueError: Unknown split "dev".',)
