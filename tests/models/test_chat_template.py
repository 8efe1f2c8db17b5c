"""What a chat template writes depends on the conversation and a given date, and on nothing hidden."""

import random
from datetime import datetime

import pytest
from small_models import CHAT_TEMPLATE, byte_tokenizer
from transformers.utils import chat_template_utils

from activedpo_cli.models.chat_template import render_chat

CHAT = [{"role": "user", "content": "hi"}]
DAYS = (datetime(2026, 1, 2, 3, 4, 5), datetime(2031, 12, 30, 23, 59, 59))


def tokenizer_with(template: str):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(params=DAYS)
def today(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> datetime:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return request.param

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    return request.param


FORMS = ["%d %b %Y", "%Y-%m-%d %H:%M:%S", "%-d %B, %A", "%D %j %U %y", "%I:%M %p", "no date"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("date", ["26 Jul 2024", "05 Mar 2019"])
def test_templates_read_a_given_date(today: datetime, form: str, date: str) -> None:
    tokenizer = tokenizer_with("{{ strftime_now('" + form + "') }}")
    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == today.strftime(form)
    day = datetime(2024, 7, 26) if date == "26 Jul 2024" else datetime(2019, 3, 5)
    assert render_chat(tokenizer, CHAT, opened=True, date=date) == day.strftime(form)


def test_the_way_llama_asks(today: datetime) -> None:
    asked = (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = 'none' %}{%- endif %}"
        "{%- endif %}{{- 'Today Date: ' + date_string }}"
    )
    assert render_chat(tokenizer_with(asked), CHAT, opened=True) == "Today Date: 26 Jul 2024"


def test_a_template_with_a_clock_is_otherwise_as_it_was() -> None:
    unused = "\n  {% if false %}{{ strftime_now('%d') }}{% endif %}\n" + CHAT_TEMPLATE
    tokenizer = tokenizer_with(unused)
    for opened in (False, True):
        plain = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=opened)
        assert render_chat(tokenizer, CHAT, opened=opened) == plain


def test_random_choices_are_always_the_same() -> None:
    tokenizer = tokenizer_with("{{ range(1000) | random }} {{ range(1000) | random }}")
    random.seed(5)
    state = random.getstate()
    found = {render_chat(tokenizer, CHAT, opened=True) for _ in range(5)}
    assert len(found) == 1
    assert random.getstate() == state
