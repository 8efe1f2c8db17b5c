"""What each check says of templates as real models have them; the expected lines are read off the templates."""

import pytest
from small_models import CHAT_TEMPLATE, EOS, TURN, byte_tokenizer

from activedpo_cli.base.template_date import TEMPLATE_DATE
from activedpo_cli.models.encoding import encode_prompt
from activedpo_cli.models.template_checks import CHECKS, Rendered, findings

ASKED = ({"role": "user", "content": "hi"},)
STARTED = (*ASKED, {"role": "assistant", "content": "Sure, "})
OPENED = "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
HEADERLESS = CHAT_TEMPLATE.replace(OPENED, "")
CONTENT = "{{ message['content'] }}"
TEMPLATES = {
    "sound": (CHAT_TEMPLATE, {}),
    "headerless": (HEADERLESS, {"opens answers": "opens no answer; '<turn>assistant\\n'"}),
    "shows no answers": (
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}",
        {"opens answers": "shows none", "answers stay": "alters"},
    ),
    "leaves a space": (
        "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] }}]{% else %} {{ m['content'] }}{% endif %}"
        "{% endfor %}",
        {"answers join": "writes ' ' between a prompt and an answer"},
    ),
    "trims": (
        CHAT_TEMPLATE.replace(CONTENT, "{{ message['content'] | trim }}"),
        {"answers stay": "white space around"},
    ),
    "drops thoughts": (
        CHAT_TEMPLATE.replace(CONTENT, "{{ message['content'].split('</think>')[-1] }}"),
        {"answers stay": "thoughts in"},
    ),
    "ends by text": (
        CHAT_TEMPLATE.replace("<eos>", "[end]"),
        {"turns end": "with the text '[end]', at which no sampling stops"},
    ),
    "ends by another token": (CHAT_TEMPLATE.replace("<eos>", "<pad>"), {"turns end": "with `<pad>`"}),
    "ends by nothing": (CHAT_TEMPLATE.replace("<eos>", ""), {}),
    "refuses": ("{{ raise_exception('no') }}", {}),
}


def rendered(template: str) -> Rendered:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = template
    return Rendered(tokenizer, TEMPLATE_DATE, {}, {EOS, TURN})


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_check_says_what_the_template_does(name: str) -> None:
    template, expected = TEMPLATES[name]
    said = {check: findings(rendered(template), ASKED, check) for check in CHECKS}
    assert {check for check, found in said.items() if found} == expected.keys()
    for check, words in expected.items():
        (finding,) = said[check]
        assert words in finding.says
        assert not finding.is_wrong


THOUGHT = "{% if message['role'] == 'assistant' %}<think></think>{% endif %}"


def test_an_answer_that_a_prompt_begins_is_altered() -> None:
    """By a template that puts empty thoughts before it; the prompt is opened without them."""
    template = CHAT_TEMPLATE.replace(CONTENT, THOUGHT + CONTENT)
    (finding,) = findings(rendered(template), STARTED)
    assert finding.says.split("begins as ")[1] == (
        r"'…os>\n<turn>assistant\n<think></think>Sure, ', and opens it with '…os>\n<turn>assistant\nSure, '"
    )
    assert finding.do == ""
    told = "<turn>assistant\n{% if enable_thinking is false %}<think></think>{% endif %}"
    tellable = template.replace(OPENED, "{% if add_generation_prompt %}" + told + "{% endif %}")
    (finding,) = findings(rendered(tellable), STARTED)
    assert finding.do == "--set prompts.template_kwargs=[enable_thinking=false]"


def test_a_header_that_ends_in_a_space_leaves_it_to_the_answer() -> None:
    template = "{% for m in messages %} {{ m['role'] }}: {{ m['content'] }}{% endfor %}"
    tokenizer = rendered(template).tokenizer
    assert tokenizer.decode(encode_prompt(tokenizer, "hi", chat_template="auto")) == " user: hi assistant:"


@pytest.mark.parametrize("name", ["sound", "headerless", "trims"])
def test_nothing_is_said_of_answers_that_prompts_begin(name: str) -> None:
    assert findings(rendered(TEMPLATES[name][0]), STARTED) == []
