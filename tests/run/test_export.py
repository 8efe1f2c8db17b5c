"""`activedpo export`: what other trainers make of the files, by their own rules, and what never goes out."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import STAGES, activedpo, done, manifest, on, refused, rows, snapshot
from hostile_text import HOSTILE
from hub_server import TOKEN, Repository, serving
from hypothesis import given
from hypothesis import strategies as st
from small_models import byte_tokenizer

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.exporters import axolotl, llama_factory, openrlhf, trl

FORMATS = ["trl", "openrlhf", "axolotl", "llama-factory"]
OUT = Path("out")
TEXTS = st.one_of(
    st.sampled_from(sorted(HOSTILE.values())), st.text(max_size=20), st.text("user sitan\n ", max_size=8)
).map(lambda text: text.encode("utf-8", "replace").decode())
TRIMMING = (
    "{% for message in messages %}<|start|>{{ message['role'] }}<|end|>\n\n{{ message['content'] | trim }}<eos>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
"""Of a kind with Llama 3's, which trims every message."""


def preference(prompt: Any, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    """A row of `label/preferences.jsonl`."""

    def answer(text: str) -> Any:
        return [{"role": "assistant", "content": text}] if isinstance(prompt, list) else text

    ids = {"pair_id": "p000001/i001/r0-r1", "prompt_id": "p000001", "chosen_id": "r0", "rejected_id": "r1"}
    texts = {"prompt": prompt, "chosen": answer(chosen), "rejected": answer(rejected)}
    return {**ids, **texts, "oracle": "human", "score_chosen": None, "score_rejected": None, **more}


def chat(*texts: str, system: str | None = None) -> list[dict[str, str]]:
    """Turns of a user and an assistant."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]


def rendering(template: str | None = None) -> Any:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = template or tokenizer.chat_template
    return lambda messages, **more: tokenizer.apply_chat_template(messages, tokenize=False, **more)


def as_axolotl_reads(row: dict[str, Any], render: Any) -> dict[str, str]:
    """The rule of `prompt_strategies/dpo/chat_template.py`: the answer begins where its text is found first."""
    found = {"prompt": render(row["messages"], add_generation_prompt=True)}
    for side in ("chosen", "rejected"):
        text = render([{"role": "user", "content": "[[dummy_message]]"}, row[side]], add_generation_prompt=False)
        found[side] = text[text.find(row[side]["content"]) :].rstrip()
    return found


def test_the_rule_of_axolotl_loses_an_answer_with_blanks_at_its_end() -> None:
    row = {"messages": chat("Hi"), "chosen": {"role": "assistant", "content": " a\n"}, "rejected": {}}
    row["rejected"] = {"role": "assistant", "content": "b"}
    assert as_axolotl_reads(row, rendering(TRIMMING))["chosen"] == ">"


@pytest.mark.parametrize("template", [None, TRIMMING], ids=["as it is", "trimming"])
@given(chosen=TEXTS, rejected=TEXTS)
def test_axolotl_finds_every_answer_that_it_is_not_warned_of(template: str | None, chosen: str, rejected: str) -> None:
    long = ["long enough not to stand in a template: ", "and another one which is long enough: "]
    pair = preference(chat("Why?", system="Be kind."), f" {long[0]}{chosen}", f"{long[1]}{rejected}\n")
    exported = axolotl.export([pair], OUT)
    (row,) = exported.rows
    render = rendering(template)
    read = as_axolotl_reads(row, render)
    assert read["prompt"] == render(pair["prompt"], add_generation_prompt=True)
    for side in ("chosen", "rejected"):
        bare = pair[side][0]["content"].strip()
        assert read[side].startswith(bare)
        assert read[side].removeprefix(bare).strip() in ("<eos>", ""), "no more than the end of the turn"
    assert any("blanks" in warning for warning in exported.warnings)
    assert not any("than 16" in warning for warning in exported.warnings)


def test_axolotl_is_told_of_short_answers_and_loses_what_it_can_not_tell_apart() -> None:
    short = preference(chat("Hi"), "user", "long enough to be found")
    assert as_axolotl_reads(axolotl.export([short], OUT).rows[0], rendering())["chosen"].startswith("user\n[[dummy")
    pairs = [short, preference(chat("Hi"), "same ", " same"), preference(chat("Hi"), " \n", "b" * 20)]
    exported = axolotl.export(pairs, OUT)
    assert len(exported.rows) == 1
    assert exported.left_out == {
        "the answers differ in the blanks at their ends alone": 1,
        "an answer is empty without the blanks at its ends": 1,
    }
    assert "an answer has less than 16 characters in 1 pair" in exported.warnings[-1]


def as_llama_factory_reads(row: dict[str, Any], info: dict[str, Any]) -> tuple[str, list[str], list[str]] | None:
    """The rules of `SharegptDatasetConverter` with `ranking`: system, turns, both answers; None where it drops the row."""
    columns, tags = info["columns"], (("human", "observation"), ("gpt", "function_call"))
    turns, system = row[columns["messages"]], ""
    if turns and turns[0]["from"] == "system":
        system, turns = turns[0]["value"], turns[1:]
    if any(turn["from"] not in tags[place % 2] for place, turn in enumerate(turns)) or len(turns) % 2 == 0:
        return None
    answers = [row[columns[side]] for side in ("chosen", "rejected")]
    if not all(isinstance(answer, dict) and answer["from"] in tags[1] for answer in answers):
        return None
    return system, [turn["value"] for turn in turns], [answer["value"] for answer in answers]


@pytest.mark.parametrize(
    ("prompt", "is_kept"),
    [
        (chat("Hi"), True),
        (chat("Hi", "Hello", "Why?"), True),
        (chat("Hi", "Hello", "Why?", system="Be kind."), True),
        (chat("Hi", "Hello"), False),
        ([*chat("Hi"), *chat("again")], False),
        ([*chat("Hi"), {"role": "system", "content": "Be kind."}], False),
        ([{"role": "system", "content": "Be kind."}], False),
        ([{"role": "tool", "content": "5"}], False),
    ],
)
def test_llama_factory_drops_no_row(prompt: list[dict[str, str]], is_kept: bool) -> None:
    exported = llama_factory.export([preference(prompt, " a", "b\n")], OUT)
    assert sum(exported.left_out.values()) == (not is_kept)
    (info,) = json.loads(exported.files["dataset_info.json"]).values()
    assert info["ranking"] is True
    assert info["formatting"] == "sharegpt"
    assert info["file_name"] in exported.files
    speakers = {"system": "system", "user": "human", "assistant": "gpt"}
    if is_kept:
        system, turns, answers = as_llama_factory_reads(exported.rows[0], info)
        said = [message["content"] for message in prompt]
        assert [system, *turns] == (said if prompt[0]["role"] == "system" else ["", *said])
        assert answers == [" a", "b\n"]
    else:
        as_it_is = [{"from": speakers.get(m["role"], m["role"]), "value": m["content"]} for m in prompt]
        row = {
            "conversations": as_it_is,
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        }
        assert as_llama_factory_reads(row, info) is None, "it would have been dropped there"


def test_openrlhf_reads_the_file_of_trl() -> None:
    """The rule of `reward_dataset.py`: the answer is what rendering it behind the prompt adds."""
    pairs = [preference(chat("Hi", system="Be kind."), " a", "b\n"), preference(chat("Why?"), "c", "d")]
    exported, render = openrlhf.export(pairs, OUT), rendering()
    assert exported.files == trl.export(pairs, OUT).files
    assert "--data.apply_chat_template" in exported.usage
    for row, pair in zip(exported.rows, pairs, strict=True):
        prompt = render(row["prompt"], add_generation_prompt=True)
        for side in ("chosen", "rejected"):
            assert render(row["prompt"] + row[side])[len(prompt) :] == pair[side][0]["content"] + "<eos>\n"


@pytest.mark.parametrize("name", FORMATS)
def test_prompts_that_are_texts_are_read_without_a_template(name: str) -> None:
    exported = discovery.load("exporters", name).export([preference("Once", " upon", " more\n")], OUT)
    if name == "llama-factory":
        (info,) = json.loads(exported.files["dataset_info.json"]).values()
        assert as_llama_factory_reads(exported.rows[0], info) == ("", ["Once"], [" upon", " more\n"])
        assert "template: empty" in exported.usage
        return
    assert {key: exported.rows[0][key] for key in ("prompt", "chosen", "rejected")} == {
        "prompt": "Once",
        "chosen": " upon",
        "rejected": " more\n",
    }
    assert not any("chat_template" in line for line in exported.usage)


@pytest.mark.parametrize("name", FORMATS)
def test_what_the_template_was_given_beside_is_said_where_it_is_lost(name: str) -> None:
    pair = preference(chat("Hi"), "a" * 20, "b" * 20, chat_template_kwargs={"enable_thinking": False})
    exported = discovery.load("exporters", name).export([pair], OUT)
    assert ("chat_template_kwargs" in exported.rows[0]) is (name in ("trl", "openrlhf"))
    assert any("enable_thinking=False" in warning for warning in exported.warnings) is (name != "trl")


@pytest.mark.parametrize("name", FORMATS)
def test_messages_beside_texts_are_refused(name: str) -> None:
    with pytest.raises(InvalidDataError, match="some preferences have messages"):
        discovery.load("exporters", name).export([preference("a", "b", "c"), preference(chat("a"), "b", "c")], OUT)


@pytest.mark.parametrize("name", FORMATS)
def test_all_iterations_go_out_once(finished_original: Path, tmp_path: Path, name: str) -> None:
    """The run stays as it is, the same command says so, and `datasets` reads as many rows as were bought."""
    from datasets import load_dataset

    before = snapshot(finished_original)
    words = ("export", "--run", finished_original, "--format", name, "--output", tmp_path / "out")
    found = json.loads(done(*words, "--json").stdout)
    bought = [row for t in (1, 2) for row in rows(finished_original / f"iter-00{t}/label/preferences.jsonl")]
    data = rows(tmp_path / "out/preferences.jsonl")
    assert (found["preferences"], found["state"], found["iterations"]) == (len(bought), "done", [1, 2])
    table = load_dataset(
        "json", data_files=str(tmp_path / "out/preferences.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert table.to_list() == data
    answers = [row["chosen"]["value"] if name == "llama-factory" else row["chosen"] for row in data]
    assert answers == [row["chosen"] for row in bought]
    written = snapshot(tmp_path / "out")
    assert {Path(path).name for path in found["files"]} == set(written)
    assert "there already" in done(*words).stderr
    assert snapshot(tmp_path / "out") == written
    assert snapshot(finished_original) == before
    message = refused(3, *words, "--iteration", 2)
    assert "is there and holds something else" in message
    assert snapshot(tmp_path / "out") == written


def test_only_selected_pairs_and_only_what_trains_goes_out(finished: Path, tmp_path: Path) -> None:
    for stage in STAGES[3:]:
        shutil.rmtree(finished / "iter-002" / stage)
    asking = (
        "--oracle",
        "human",
        "--set",
        "label.control=2",
        "--set",
        "label.overlap=1",
        "--set",
        "label.settle=first",
    )
    file = tmp_path / "pairs.jsonl"
    assert activedpo(*on(finished, "label", iteration=2), *asking, "--export", file).exit_code == 5
    assert (
        "iteration 2 is not labelled yet"
        in done(*on(finished, "export"), "--format", "trl", "--output", tmp_path / "1").stderr
    )
    pairs = rows(file)
    selected = [row["pair_id"] for row in rows(finished / "iter-002/select/selection.jsonl")]
    words = dict(zip(selected, ["a", "tie", "both_bad", "a"], strict=True))
    first = [row | {"preference": words.get(row["pair_id"], "a"), "annotator": "ann"} for row in pairs]
    second = [row | {"preference": "b", "annotator": "bo"} for row in pairs]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*first, *second]))
    done(*on(finished, "label", iteration=2), "--import", file)
    assert manifest(finished, 2, "label")["summary"]["measuring"]["control"] == 4
    said = done(*on(finished, "export", iteration=2), "--format", "trl", "--output", tmp_path / "out").stderr
    assert "left out: 1 tied, 1 both bad" in said
    sent = {row["pair_id"]: row["response_a"] for row in pairs}
    found = rows(tmp_path / "out/preferences.jsonl")
    assert {row["pair_id"]: row["chosen"] for row in found} == {pair: sent[pair] for pair in (selected[0], selected[3])}


def test_a_run_without_preferences_or_changed_since(finished: Path, tmp_path: Path) -> None:
    words = ("export", "--run", finished, "--format", "trl", "--output")
    assert "lies in the run" in refused(2, *words, finished / "out")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refused(2, *words, tmp_path / "file")
    assert "did you mean `trl`" in refused(
        2, "export", "--run", finished, "--format", "trel", "--output", tmp_path / "x"
    )
    with (finished / "iter-001/label/preferences.jsonl").open("a") as stream:
        stream.write("{}\n")
    assert "does not hold what was made there" in refused(4, *words, tmp_path / "out")
    for iteration in ("iter-001", "iter-002"):
        shutil.rmtree(finished / iteration / "label")
    assert "is labelled" in refused(4, *words, tmp_path / "out")
    assert "`label` of iteration 1 is missing" in refused(4, *words, tmp_path / "out", "--iteration", 1)
    assert not (tmp_path / "out").exists()


def test_a_data_set_on_the_hub_is_private(
    finished_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("export", "--run", finished_original, "--format", "trl", "--output", tmp_path / "out", "--push")
    with serving(monkeypatch) as hub:
        hub.repositories["datasets/org/public"] = Repository(private=False)
        hub.repositories["datasets/org/private"] = Repository(private=True)
        assert f"{hub.url}/datasets/org/new" in done(*words, "org/new").stdout
        done(*words, "org/private", "--quiet")
        written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
        for name in ("new", "private"):
            assert hub.repositories[f"datasets/org/{name}"] == Repository(True, written, 1)
        assert "is public" in refused(3, *words, "org/public")
        assert not hub.repositories["datasets/org/public"].files
        done(*words, "org/public", "--public", "--quiet")
        assert hub.repositories["datasets/org/public"].files == written
        assert "ORG/NAME" in refused(2, *words, "a b")
        assert "whose data set" in refused(2, *words, "name")
        hub.is_broken = True
        said = refused(1, *words, "org/new")
    assert "could not be pushed" in said
    assert TOKEN not in said
    assert "hf auth login" in said
    assert "--push ORG/NAME" in refused(2, *words[:-1], "--public")


def test_the_card_of_preferences_says_where_they_come_from(finished_original: Path, tmp_path: Path) -> None:
    words = ("export", "--run", finished_original, "--format", "llama-factory", "--output", tmp_path / "out")
    done(*words)
    card = tmp_path / "out/README.md"
    metadata = yaml.safe_load(card.read_text().split("---\n")[1])
    (config,) = metadata["configs"]
    assert (tmp_path / "out" / config["data_files"]).is_file()
    assert "license" not in metadata
    for t in (1, 2):
        record = manifest(finished_original, t, "label")
        digest = hashlib.sha256(
            json.dumps(
                {name: facts["sha256"] for name, facts in record["outputs"].items()},
                sort_keys=True,
                separators=(",", ":"),
            ).encode()
        ).hexdigest()
        chosen, tied = record["summary"]["chosen"], record["summary"]["tie"]
        assert (
            f"python:letter_rule:score: {chosen} with a preferred response, {tied} tied | iter-00{t}/label"
            in card.read_text()
        )
        assert digest[:16] in card.read_text()
    card.write_text(card.read_text().replace("tags:", "license: mit\ntags:"))
    changed = card.read_text()
    assert "there already" in done(*words).stderr
    assert card.read_text() == changed, "what a person added stays"
    card.write_text("# My project\n")
    assert "README.md` is there and holds something else" in refused(3, *words)
