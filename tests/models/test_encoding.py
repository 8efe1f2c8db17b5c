"""Text becomes tokens once: special tokens exactly where they belong, responses as continuations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_models import BOS, EOS, TURN, byte_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GenerationConfig, PreTrainedTokenizerFast

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.models.encoding import (
    decode_response,
    encode_prompt,
    encode_response_text,
    stop_token_ids,
    text_with_tokens,
)
from activedpo_cli.models.loading import load_tokenizer

PLAIN = byte_tokenizer("bytes")
# In the byte alphabet, printable ASCII starts with `!` as 0.
HI = [ord("h") - ord("!"), ord("i") - ord("!")]
CHAT = [{"role": "user", "content": "hi"}]


def bytes_of(text):
    return PLAIN(text)["input_ids"]


@pytest.mark.parametrize(
    ("kind", "expected"), [("bytes", HI), ("bytes-bos", [BOS, *HI]), ("bytes-eos", HI), ("bytes-chat", HI)]
)
def test_plain_prompt_keeps_the_tokenizers_bos_and_loses_its_eos(kind, expected):
    assert encode_prompt(byte_tokenizer(kind), "hi", chat_template="never") == expected


def test_eos_written_in_the_prompt_stays():
    assert encode_prompt(byte_tokenizer("bytes-eos"), "hi<eos>", chat_template="never") == [*HI, EOS]


@pytest.mark.parametrize("kind", ["bytes-chat", "bytes-chat-bos"])
@pytest.mark.parametrize("prompt", ["hi", CHAT])
def test_chat_template_writes_one_bos_and_opens_the_answer(kind, prompt):
    token_ids = encode_prompt(byte_tokenizer(kind), prompt, chat_template="auto")
    newline = bytes_of("\n")
    turn = [TURN, *bytes_of("user\n"), *HI, EOS, *newline]
    assert token_ids == [BOS, *turn, TURN, *bytes_of("assistant\n")]


@pytest.mark.parametrize(("kind", "setting"), [("bytes", "auto"), ("bytes-chat", "never")])
def test_no_template_is_invented(kind, setting):
    with pytest.raises(InvalidDataError, match="no chat template") as caught:
        encode_prompt(byte_tokenizer(kind), CHAT, chat_template=setting)
    assert "prompts.chat_template" in caught.value.hint


def test_template_that_refuses_is_explained():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(InvalidDataError) as caught:
        encode_prompt(tokenizer, CHAT, chat_template="auto")
    assert caught.value.details == ("no system role",)


def test_empty_prompt_is_refused():
    with pytest.raises(InvalidDataError, match="no tokens"):
        encode_prompt(byte_tokenizer(), "", chat_template="never")


@given(st.text(st.characters(codec="utf-8"), max_size=30))
def test_response_text_comes_back(text):
    token_ids = encode_response_text(byte_tokenizer("bytes-bos"), text)
    if "<" not in text:  # special tokens spelt out are left out of the text
        assert BOS not in token_ids
        assert token_ids == list(bytes_of(text))
        assert decode_response(PLAIN, token_ids) == text


def test_response_gets_an_eos_only_if_asked():
    for kind in ("bytes", "bytes-bos", "bytes-eos", "bytes-chat-bos"):
        tokenizer = byte_tokenizer(kind)
        assert encode_response_text(tokenizer, "hi") == HI
        assert encode_response_text(tokenizer, "hi", append_eos=True) == [*HI, EOS]
    assert encode_response_text(PLAIN, "") == []
    assert decode_response(PLAIN, [*HI, EOS]) == "hi"


@pytest.mark.parametrize("text", ["there was", " there was", "\nthere", ", and", "  two", "żółw 🐢", "1", "a", ""])
def test_sentencepiece_response_continues_the_prompt_exactly(stories_folder, text):
    tokenizer = load_tokenizer(str(stories_folder))
    prompt = encode_prompt(tokenizer, "Once upon a time", chat_template="auto")
    response = encode_response_text(tokenizer, text)
    assert prompt[0] == tokenizer.bos_token_id
    assert tokenizer.bos_token_id not in response
    assert tokenizer.decode([*prompt, *response], skip_special_tokens=True) == "Once upon a time" + text
    assert decode_response(tokenizer, response) == text


SPELT = [" there was</s>", "Yes.</s>", "<s>Yes.", " a</s> b", "</s>", "</s> and", "home.</s>\n"]


@pytest.mark.parametrize("text", SPELT)
def test_special_tokens_spelt_out_leave_the_seam_as_it_is(stories_folder, text):
    """The tokenizer itself says how a text goes on that holds both, since nothing merges with the end of a line."""
    tokenizer = load_tokenizer(str(stories_folder))
    whole, prompt = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in ("Once\n" + text, "Once\n"))
    ids = encode_response_text(tokenizer, text)
    assert [*prompt, *ids] == whole
    ended = encode_response_text(tokenizer, text, append_eos=True)
    is_ended = text.rstrip().endswith("</s>")
    up_to_end = (
        ids[: max(place for place, token in enumerate(ids) if token == tokenizer.eos_token_id) + 1] if is_ended else ids
    )
    assert ended == (up_to_end if is_ended else [*ids, tokenizer.eos_token_id])


def test_an_end_is_appended_only_where_there_is_none():
    hi, newline = PLAIN("hi")["input_ids"], PLAIN("\n")["input_ids"]
    for text, expected in (
        ("hi", [*hi, EOS]),
        ("hi<eos>", [*hi, EOS]),
        ("hi<eos>\n", [*hi, EOS]),
        ("<eos>hi", [EOS, *hi, EOS]),
        ("hi\n", [*hi, *newline, EOS]),
        ("", [EOS]),
    ):
        assert encode_response_text(PLAIN, text, append_eos=True) == expected


def test_stop_tokens_are_united():
    several = GenerationConfig(eos_token_id=[3, 4])
    assert stop_token_ids(PLAIN, several, [5]) == {EOS, 3, 4, 5}
    assert stop_token_ids(PLAIN, GenerationConfig(eos_token_id=7)) == {EOS, 7}
    assert stop_token_ids(PLAIN, GenerationConfig()) == stop_token_ids(PLAIN, None) == {EOS}
    for wrong in (-1, 260):
        with pytest.raises(UsageError, match=str(wrong)):
            stop_token_ids(PLAIN, None, [wrong])


def test_tokens_are_shown_with_their_text(stories_folder):
    euro = bytes_of("€")
    shown = text_with_tokens(PLAIN, [*HI, *euro, EOS])
    assert shown[:2] == [(HI[0], "h"), (HI[1], "i")]
    assert [token_id for token_id, _ in shown] == [*HI, *euro, EOS]
    assert shown[-1] == (EOS, "<eos>")
    assert all(piece and "\ufffd" not in piece for _, piece in shown)
    real = load_tokenizer(str(stories_folder))
    assert text_with_tokens(real, encode_response_text(real, " there"))[0][1].startswith(" t")


def test_tokenizer_without_eos():
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "\n": 2, "?": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?")
    assert encode_prompt(tokenizer, "a b", chat_template="auto") == [0, 1]
    assert encode_response_text(tokenizer, "a b") == [0, 1]
    assert stop_token_ids(tokenizer, None) == frozenset()
    with pytest.raises(InvalidDataError):
        encode_response_text(tokenizer, "a", append_eos=True)
