"""From rows of a file to what the model reads and learns."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from small_models import BOS, EOS, TURN, byte_tokenizer
from transformers import GenerationConfig

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.models.encoding import AnswerEnd, answer_end
from activedpo_cli.train.sft_data import SFTRow, encode_rows, read_sft_rows
from activedpo_cli.train.sft_examples import SFTExample

USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}


def read(folder: Path, row: dict[str, Any]) -> SFTRow:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    [found] = read_sft_rows(path)
    return found


@pytest.mark.parametrize(
    ("row", "prompt", "text"),
    [
        ({"prompt": "hi", "completion": "yes", "chosen": "yes"}, "hi", "yes"),
        ({"prompt": "hi", "chosen": "yes", "rejected": "no", "text": "t"}, "hi", "yes"),
        ({"prompt": "hi", "completion": [ANSWER]}, "hi", "yes"),
        ({"prompt": [USER], "completion": "yes"}, [USER], "yes"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, [USER], "yes"),
        ({"prompt": "hi", "chosen": [USER, ANSWER], "rejected": []}, "hi", "yes"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, [USER], "yes"),
        ({"messages": [USER, ANSWER], "text": "rendered"}, [USER], "yes"),
        ({"messages": [USER, ANSWER, USER, ANSWER]}, [USER, ANSWER, USER], "yes"),
        ({"text": " all of it", "prompt": None}, None, " all of it"),
    ],
)
def test_shapes_of_rows(tmp_path: Path, row: dict[str, Any], prompt: Any, text: str) -> None:
    found = read(tmp_path, row)
    assert (found.prompt, found.text) == (prompt, text)
    assert found.origin == "rows.jsonl line 1"


def test_a_conversation_about_something_else(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidDataError, match="line 1, chosen: the messages before the answer are not those of `prompt`"
    ):
        read(tmp_path, {"prompt": "ho", "chosen": [USER, ANSWER]})


def test_a_prompt_that_every_answer_repeats_is_not_learnt(tmp_path: Path) -> None:
    path, said = tmp_path / "rows.jsonl", list[str]()
    asked = [f"Question number {n}:" for n in range(3)]
    whole = [{"prompt": f"{text} ", "completion": f"{text}{'yes' if n else ' yes'}"} for n, text in enumerate(asked)]
    path.write_text("".join(json.dumps(row) + "\n" for row in whole))
    assert [row.text for row in read_sft_rows(path, said.append)] == ["yes"] * 3
    path.write_text("".join(json.dumps(row) + "\n" for row in [*whole[:1], {"prompt": "a", "chosen": "b"}]))
    assert [row.text for row in read_sft_rows(path, said.append)] == ["Question number 0: yes", "b"]
    assert said == [
        "the prompt was taken off the start of what answers it in 3 rows",
        "what answers the prompt begins with its text in 1 of 2 rows (line 1), and stays as it is",
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*whole, {"prompt": "a", "completion": "b"}]))
    with pytest.raises(InvalidDataError, match="line 4 does not repeat its prompt in its answer"):
        read_sft_rows(path)
    path.write_text(json.dumps({"prompt": "a prompt of many words", "completion": "a prompt of many words"}))
    with pytest.raises(InvalidDataError, match="line 1: the answer holds its prompt alone"):
        read_sft_rows(path)


@pytest.mark.parametrize(
    "shape",
    [
        lambda user, answer: {"prompt": user["content"], "completion": [answer]},
        lambda user, answer: {"prompt": user["content"], "completion": answer},
        lambda user, answer: {"prompt": [user], "completion": [user, answer]},
        lambda user, answer: {"messages": [{"role": "system", "content": "Be kind."}, user, answer]},
    ],
)
def test_a_prompt_that_every_answer_repeats_is_not_learnt_from_messages_either(tmp_path: Path, shape: Any) -> None:
    path, said = tmp_path / "rows.jsonl", list[str]()
    asked = [{"role": "user", "content": f"Question number {n}:"} for n in range(3)]
    rows = [shape(one, {"role": "assistant", "content": f"{one['content']} yes"}) for one in asked]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [row.text for row in read_sft_rows(path, said.append)] == [" yes"] * 3
    assert said == ["the prompt was taken off the start of what answers it in 3 rows"]


def test_an_answer_that_merely_begins_with_a_short_prompt_is_learnt_whole(tmp_path: Path) -> None:
    path, said = tmp_path / "rows.jsonl", list[str]()
    answers = {"Hi": "Hi there!", "Hello": "Hello."}
    path.write_text("".join(json.dumps({"prompt": a, "completion": b}) + "\n" for a, b in answers.items()))
    assert [row.text for row in read_sft_rows(path, said.append)] == list(answers.values())
    assert said == ["what answers the prompt begins with its text in 2 of 2 rows (lines 1, 2), and stays as it is"]


@pytest.mark.parametrize("nothing", ["", " ", None])
@pytest.mark.parametrize(
    ("row", "message"), [({"prompt": "hi"}, "`completion` is empty"), ({"completion": "x"}, "the prompt is empty")]
)
def test_nothing_is_named_alike_however_it_is_spelled(
    tmp_path: Path, nothing: Any, row: dict[str, str], message: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": nothing, "completion": nothing} | row) + "\n")
    with pytest.raises(InvalidDataError, match=f"a.jsonl line 1: {message}"):
        read_sft_rows(path)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "hi", "completion": "yes"}\n'))
    (tmp_path / "a.csv").write_text('prompt,completion\nhi,"yes"\n')
    (tmp_path / "a.txt").write_text("one text\nanother\n")
    assert [(row.prompt, row.text) for row in read_sft_rows(tmp_path / "a.jsonl.gz")] == [("hi", "yes")]
    assert [(row.prompt, row.text) for row in read_sft_rows(tmp_path / "a.csv")] == [("hi", "yes")]
    assert [(row.prompt, row.text) for row in read_sft_rows(tmp_path / "a.txt")] == [
        (None, "one text"),
        (None, "another"),
    ]


def test_all_rows_of_a_prompt_are_on_one_side() -> None:
    rows = [SFTRow(f"line {n}", f"prompt {n % 10}", str(n)) for n in range(40)]
    options: Any = {"rendering": {"chat_template": "never"}, "end": None, "max_length": None, "truncate": False}
    all_rows, one_row = (encode_rows(found, byte_tokenizer(), **options) for found in (rows, rows[:1]))
    prompt_of = {row.origin: row.prompt for row in rows}

    def prompts(examples: list[SFTExample]) -> set[Any]:
        return {prompt_of[example.origin] for example in examples}

    kept, held = all_rows.split(0.3, seed=1)
    assert {example.origin for example in kept + held} == set(prompt_of)
    assert len(kept + held) == 40
    assert len(prompts(held)) == 3
    assert not prompts(held) & prompts(kept)
    assert all_rows.split(0.3, seed=1) == (kept, held)
    assert all_rows.split(0.3, seed=2) != (kept, held)
    assert len(prompts(all_rows.split(0.001, seed=1)[1])) == 1
    assert len(prompts(all_rows.split(0.999, seed=1)[0])) == 1
    assert all_rows.split(0, seed=1) == (all_rows.examples, [])
    assert one_row.split(0.5, seed=1) == (one_row.examples, [])


def test_what_is_too_long_is_not_among_the_held_out() -> None:
    rows = [SFTRow(f"line {n}", f"prompt {n}", "x" * (300 if n % 10 else 3)) for n in range(40)]
    options: Any = {"rendering": {"chat_template": "never"}, "end": None, "max_length": 100, "truncate": False}
    kept, held = encode_rows(rows, byte_tokenizer(), **options).split(0.5, seed=1)
    assert (len(kept), len(held)) == (2, 2)


def encoded(kind: Any, row: SFTRow, *, chat_template: str = "auto", end: bool = True) -> tuple[list[int], int]:
    tokenizer = byte_tokenizer(kind)
    ended = answer_end(tokenizer, GenerationConfig(eos_token_id=EOS), (), chat_template=chat_template) if end else None
    [example] = encode_rows(
        [row], tokenizer, rendering={"chat_template": chat_template}, end=ended, max_length=None, truncate=False
    ).examples
    return list(example.token_ids), example.context_tokens


def ids(text: str) -> list[int]:
    return byte_tokenizer()(text)["input_ids"]


@pytest.mark.parametrize(
    ("kind", "context"),
    [
        ("bytes", ids("hi")),
        ("bytes-bos", [BOS, *ids("hi")]),
        ("bytes-eos", ids("hi")),
        ("bytes-chat", [BOS, TURN, *ids("user\nhi"), EOS, *ids("\n"), TURN, *ids("assistant\n")]),
    ],
)
def test_an_answer_follows_what_sampling_would_have_read(kind: str, context: list[int]) -> None:
    row = SFTRow("line 1", "hi", " yes")
    assert encoded(kind, row) == ([*context, *ids(" yes"), EOS], len(context))
    assert encoded(kind, row, end=False) == ([*context, *ids(" yes")], len(context))


@pytest.mark.parametrize(
    ("kind", "before"), [("bytes", []), ("bytes-bos", [BOS]), ("bytes-eos", []), ("bytes-chat", [])]
)
def test_of_a_text_all_but_the_first_token_is_learnt(kind: str, before: list[int]) -> None:
    assert encoded(kind, SFTRow("line 1", None, "abc")) == ([*before, *ids("abc"), EOS], 1)


def test_messages_need_a_template() -> None:
    with pytest.raises(InvalidDataError, match="line 7: a prompt is a list of messages"):
        encoded("bytes", SFTRow("line 7", [USER], "yes"))


@pytest.mark.parametrize(("stops", "expected"), [([EOS, TURN], TURN), (EOS, EOS), (None, EOS)])
def test_a_turn_ends_with_the_templates_token_where_sampling_stops_at_it(stops: Any, expected: int) -> None:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<turn>\n{% endfor %}"
    config = GenerationConfig(eos_token_id=stops)
    found = answer_end(tokenizer, config, (), chat_template="auto")
    assert found is not None
    assert found.token_id == expected
    assert answer_end(tokenizer, config, (), chat_template="never") == AnswerEnd(EOS, found.known)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    assert answer_end(tokenizer, config, (), chat_template="auto") == AnswerEnd(EOS, found.known)
    tokenizer.eos_token = None
    assert answer_end(tokenizer, config, (), chat_template="never") is None


def test_a_turn_ends_at_a_token_that_the_settings_stop_at() -> None:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}<turn>\n{% endfor %}"
    config = GenerationConfig(eos_token_id=EOS)
    ordinary = ids("a")
    for further in ([TURN], [TURN, *ordinary]):
        found = answer_end(tokenizer, config, further, chat_template="auto")
        assert found == AnswerEnd(TURN, frozenset([EOS, TURN])), "a text may end with an a"
    assert answer_end(tokenizer, config, [TURN], chat_template="never") == AnswerEnd(EOS, frozenset([EOS, TURN]))


@pytest.mark.parametrize("spelt", ["<eos>", "<turn>"])
@pytest.mark.parametrize("appended", [EOS, TURN])
def test_a_text_that_ends_at_any_stop_gets_no_second_end(spelt: str, appended: int) -> None:
    """As texts of models with several ends, of which only one is the tokenizer's."""
    end = AnswerEnd(appended, frozenset([EOS, TURN]))
    options: Any = {"rendering": {"chat_template": "never"}, "end": end, "max_length": None, "truncate": False}
    rows = [SFTRow("line 1", "hi", "yes" + ending) for ending in ("", spelt, spelt + " \n")]
    found = [list(example.token_ids) for example in encode_rows(rows, byte_tokenizer(), **options).examples]
    assert found == [[*ids("hiyes"), appended], ids("hiyes" + spelt), ids("hiyes" + spelt)]


@pytest.mark.parametrize("prompt", [None, "hi"])
def test_an_end_that_the_text_spells_out_is_the_only_one(prompt: str | None) -> None:
    rows = [SFTRow("line 1", prompt, text) for text in ("yes", "yes<eos>")]
    options: Any = {"rendering": {"chat_template": "never"}, "max_length": None, "truncate": False}
    plain, spelt = encode_rows(rows, byte_tokenizer(), end=AnswerEnd(EOS, frozenset([EOS])), **options).examples
    assert list(spelt.token_ids) == list(plain.token_ids)
    assert list(plain.token_ids).count(EOS) == 1


def test_rows_that_the_model_reads_as_one_prompt_are_on_one_side() -> None:
    """Spaces that the template trims make no other prompt, so none of the held-out ones is learnt."""
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    rows = [SFTRow(f"line {n}", f"{n // 2}" + " " * (n % 2), "yes") for n in range(16)]
    options: Any = {
        "rendering": {"chat_template": "auto"},
        "end": AnswerEnd(EOS, frozenset([EOS])),
        "max_length": None,
        "truncate": False,
    }
    learnt, held = encode_rows(rows, tokenizer, **options).split(0.5, seed=0)
    assert len(learnt) == len(held) == 8
    assert not {tuple(row.token_ids) for row in learnt} & {tuple(row.token_ids) for row in held}


@pytest.mark.parametrize("prompt", ["hi", None])
def test_what_is_wrong_with_an_answer_names_its_row(monkeypatch: pytest.MonkeyPatch, prompt: str | None) -> None:
    def refusing(*_: Any) -> None:
        raise InvalidDataError("the tokenizer can't read it")

    for name in ("encode_response_text", "encode_text"):
        monkeypatch.setattr(f"activedpo_cli.models.encoding.{name}", refusing)
    monkeypatch.setattr("activedpo_cli.models.encoding.encode_prompt", lambda *_, **__: [1])
    monkeypatch.setattr("activedpo_cli.models.vocabulary.require_readable", lambda *_: None)
    row = SFTRow("rows.jsonl line 7", prompt, "yes")
    with pytest.raises(InvalidDataError, match="rows.jsonl line 7"):
        encode_rows([row], None, rendering={}, end=None, max_length=None, truncate=False)  # type: ignore[arg-type]
