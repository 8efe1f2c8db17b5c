"""Chat templates, from the command line: what the model reads before it answers."""

import json
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from command_line import STAGES, done, make_partial, manifest, on, refused, rows
from small_models import CHAT_TEMPLATE, EOS, TURN, byte_tokenizer, save_small_model, save_small_reward_model
from small_runs import small_run
from transformers.utils import chat_template_utils

from activedpo_cli.base.numbers import counted
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.settings import Config
from activedpo_cli.models import encoding
from activedpo_cli.policy.rendering_check import check_rendering

WITHOUT_GRADIENTS = {"select__method": "random"}
"""For what comes behind a selection, or between others: gradients are of the tokens that were recorded before."""
CLOCK = "{{ strftime_now('%d %b %Y %H:%M') }}\n" + CHAT_TEMPLATE
TOKENIZER = byte_tokenizer("bytes-chat")


def model_with(folder: Path, template: str) -> Path:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = template
    return save_small_model(folder, tokenizer=tokenizer, num_hidden_layers=1)


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
    run = small_run(tmp_path / "run", model_with(tmp_path / "model", CLOCK), prompts_file, **WITHOUT_GRADIENTS)
    for stage in STAGES[:5]:
        done(*on(run, stage), "--quiet")
    assert "asks for the date" not in done(*on(run, "generate", iteration=2)).stderr
    shutil.rmtree(run / "iter-002")
    path = run / "iter-001/generate/manifest.json"
    record = json.loads(path.read_text())
    del record["settings"]["prompts.template_date"], record["checksum"]
    path.write_text(json.dumps(record))
    said = done(*on(run, "generate", iteration=2)).stderr
    assert "so read the prompts of iteration 1; from now on it is 26 Jul 2024" in said


OPENED = "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
HEADERLESS = CHAT_TEMPLATE.replace(OPENED, "")
ANSWERED_OTHERWISE = "{% if messages[-1]['role'] == 'assistant' %}Answered.\n{% endif %}" + HEADERLESS
TRIMMING = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
NO_SYSTEM = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


def write_prompts(path: Path, prompts: list[object]) -> Path:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def in_words(text: str) -> str:
    return " ".join(text.split())


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_an_answer_that_the_template_does_not_open_is_opened(tmp_path: Path, prompts_file: Path) -> None:
    model = model_with(tmp_path / "model", HEADERLESS)
    run = small_run(tmp_path / "run", model, prompts_file, **WITHOUT_GRADIENTS)
    said = in_words(done(*on(run, "generate"), "--quiet").stderr)
    assert r"the chat template opens no answer; '<turn>assistant\n', which it writes before one, is put behind" in said
    texts = read_by_the_model(run / "iter-001" / "generate").values()
    assert all(text.endswith("<eos>\n<turn>assistant\n") and text.count("<turn>") == 2 for text in texts)
    for stage in ("featurize", "select", "label", "train"):
        done(*on(run, stage), "--quiet")
    assert done(*on(run, "generate", iteration=2), "--quiet").stderr == "", "once is enough"


def test_white_space_before_an_answer_is_no_header(tmp_path: Path, prompts_file: Path) -> None:
    """As in the templates of Llama 2 and Mistral, which open answers by the end of an instruction."""
    template = (
        "{% for m in messages %}{% if m['role'] == 'user' %}[{{ m['content'] }}]{% else %} {{ m['content'] }}<eos>"
    )
    model = model_with(tmp_path / "model", template + "{% endif %}{% endfor %}")
    run = small_run(tmp_path / "run", model, prompts_file)
    assert done(*on(run, "generate"), "--quiet").stderr == ""
    assert all(text.endswith("]") for text in read_by_the_model(run / "iter-001" / "generate").values())


def test_a_template_in_which_no_answer_can_be_opened(tmp_path: Path, prompts_file: Path) -> None:
    model = model_with(tmp_path / "model", ANSWERED_OTHERWISE)
    run = small_run(tmp_path / "run", model, prompts_file)
    said = in_words(refused(4, *on(run, "generate"), "--quiet"))
    assert "writes a prompt otherwise once an answer stands behind it" in said
    assert "--set prompts.chat_template=never" in said
    assert not (run / "iter-001").exists()
    examples = tmp_path / "examples.jsonl"
    examples.write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}\n')
    assert "writes a prompt otherwise" in in_words(refused(4, *on(run, "sft"), "--data", examples))


def test_a_run_that_began_with_such_a_template_goes_on_with_a_warning() -> None:
    said: list[str] = []
    listener = Progress()
    listener.warn = said.append  # type: ignore[method-assign]
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = ANSWERED_OTHERWISE
    check_rendering(tokenizer, [("prompt `a`", "hi")], Config(), listener, is_first=False)
    (line,) = said
    assert "writes a prompt otherwise once an answer stands behind it" in line


@pytest.mark.parametrize(
    ("opened", "answers", "says"),
    [
        ("<turn>assistant\n<think>\n", "", r"<turn>assistant\n<think>\n', and with '…"),
        ("<turn>assistant\n", "<think></think>", "writes '<think></think>' before an answer that it is given"),
    ],
)
def test_prompts_that_change_once_they_are_answered(
    tmp_path: Path, prompts_file: Path, opened: str, answers: str, says: str
) -> None:
    template = CHAT_TEMPLATE.replace(OPENED, "{% if add_generation_prompt %}" + opened + "{% endif %}")
    thought = "{% if message['role'] == 'assistant' %}" + answers + "{% endif %}"
    template = template.replace("{{ message['content'] }}", thought + "{{ message['content'] }}")
    run = small_run(tmp_path / "run", model_with(tmp_path / "model", template), prompts_file)
    assert says in in_words(done(*on(run, "generate"), "--quiet").stderr)


THINKING = CHAT_TEMPLATE.replace(
    OPENED,
    "{% if add_generation_prompt %}<turn>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}",
).replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' %}<think></think>{% endif %}{{ message['content'] }}",
)
"""Like that of Qwen3: an answer that is given has no thoughts, and one that is sampled begins with some."""


def test_arguments_of_the_template_are_settings_of_the_run(tmp_path: Path, prompts_file: Path) -> None:
    model = model_with(tmp_path / "model", THINKING)
    judge = save_small_reward_model(tmp_path / "judge", "llama")
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = (
        "{% if enable_thinking is defined %}{{ raise_exception('not mine') }}{% endif %}" + CHAT_TEMPLATE
    )
    tokenizer.save_pretrained(judge)
    words = "prompts.template_kwargs=[enable_thinking=false]"
    plain = small_run(tmp_path / "plain", model, prompts_file)
    assert f"--set {words}" in in_words(done(*on(plain, "generate"), "--quiet").stderr)
    run = small_run(
        tmp_path / "run",
        model,
        prompts_file,
        f"reward-model:{judge}",
        prompts__template_kwargs=["enable_thinking=false"],
        **WITHOUT_GRADIENTS,
    )
    assert done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report").stderr == ""
    for folder in ("iter-001/generate", "iter-001/evaluate", "reference/evaluate"):
        assert all(text.endswith("assistant\n<think></think>") for text in read_by_the_model(run / folder).values())
    assert manifest(run, 1, "generate")["settings"]["prompts.template_kwargs"] == ["enable_thinking=false"]
    for row in rows(run / "iter-001" / "label" / "preferences.jsonl"):
        assert row["chat_template_kwargs"] == {"enable_thinking": False}
    assert "fixed" in refused(3, *on(run, "generate", iteration=1), "--set", "prompts.template_kwargs=[]")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("[thinking]", "not of the form name=value"),
        ("[tools=1]", "`tools` can't be given"),
        ("[x=.inf]", "gives no finite number"),
        ("[a=1, a=2]", "`a` is given twice"),
        ("['a=[1]']", "gives no single value"),
    ],
)
def test_what_is_no_argument_of_a_template(tmp_path: Path, prompts_file: Path, value: str, says: str) -> None:
    words = ("init", "--run", tmp_path / "run", "--model", "tiny", "--prompts", prompts_file)
    assert says in in_words(refused(2, *words, "--set", f"prompts.template_kwargs={value}"))


@pytest.mark.parametrize("recorded", [False, True])
def test_a_template_without_a_system_role_names_the_prompt(tmp_path: Path, recorded: bool) -> None:
    """Also where only one prompt of many has a system message, and none is to be drawn that has."""
    system = [{"role": "system", "content": "Be short."}, user("a")]
    prompts = write_prompts(tmp_path / "prompts.jsonl", [[user(str(n))] for n in range(9)] + [system])
    answers = tmp_path / "answers.jsonl"
    row = {"prompt": [user("1")], "responses": [{"text": "yes"}, {"text": "no"}]}
    answers.write_text(json.dumps(row) + "\n")
    more = {"generate__responses": str(answers)} if recorded else {}
    model = model_with(tmp_path / "model", NO_SYSTEM + CHAT_TEMPLATE)
    run = small_run(tmp_path / "run", model, prompts, eval_prompts=0, generate__num_prompts=1, **more)
    said = in_words(refused(4, *on(run, "generate"), "--quiet"))
    assert "prompt `p000009`: the tokenizer's chat template refuses a prompt" in said
    assert "System role not supported" in said
    assert "put its text at the beginning of the user's message" in said


def test_a_turn_that_ends_with_no_stop_token(tmp_path: Path, prompts_file: Path) -> None:
    template = CHAT_TEMPLATE.replace("<eos>", "{% if message['role'] == 'assistant' %}<turn>{% else %}<eos>{% endif %}")
    model = model_with(tmp_path / "model", template)
    run = small_run(tmp_path / "run", model, prompts_file, generate__stop_token_ids=[])
    said = in_words(done(*on(run, "generate"), "--quiet").stderr)
    way_out = f"generate.stop_token_ids=[{TURN}]"
    assert f"ends an answer with `<turn>`, and sampling does not stop there; --set {way_out}" in said
    again = done(*on(run, "generate"), "--set", way_out, "--force", "--quiet")
    assert "does not stop there" not in again.stderr


def test_responses_that_were_all_cut_off_are_told_of(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    run = small_run(
        tmp_path / "run", small_model, prompts_file, generate__stop_token_ids=[], generate__max_new_tokens=1
    )
    assert "all 18 responses were cut off at 1 tokens" in in_words(done(*on(run, "generate"), "--quiet").stderr)


def test_prompts_that_read_as_held_out_ones_are_passed_over(tmp_path: Path) -> None:
    """Spaces make another text of a prompt, and no other prompt for a template that trims."""
    texts = [text for n in range(6) for text in (f"question {n}", f"question {n} ")]
    model = model_with(tmp_path / "model", TRIMMING)
    prompts = write_prompts(tmp_path / "prompts.jsonl", texts)
    run = small_run(tmp_path / "run", model, prompts, eval_prompts=2, generate__num_prompts=None)
    said = in_words(done(*on(run, "generate"), "--quiet").stderr)
    split = {row["prompt_id"]: (row["split"], row["prompt"].strip()) for row in rows(run / "prompts.jsonl")}
    held_out = {text for part, text in split.values() if part == "eval"}
    drawn = json.loads((run / "iter-001" / "generate" / "prompts.json").read_bytes())
    read = [split[name][1] for name in drawn["prompt_ids"]]
    assert sorted(read) == sorted({text for _, text in split.values()} - held_out)
    assert {split[name][1] for name in drawn["held_out"]} <= held_out
    passed = {why: counted(len(ids), "prompt", ("was", "were")) for why, ids in drawn.items() if isinstance(ids, list)}
    assert f"{passed['held_out']} passed over because the model reads them as it reads held-out" in said
    assert f"{passed['repeated']} passed over because the model reads them as it reads others" in said
    strict = small_run(
        tmp_path / "strict", model, prompts, eval_prompts=2, generate__num_prompts=1, prompts__duplicates="error"
    )
    assert "as it reads another one" in in_words(refused(4, *on(strict, "generate"), "--quiet"))


def test_answers_to_prompts_that_read_as_held_out_ones_are_left_out(tmp_path: Path) -> None:
    texts = [text for n in range(6) for text in (f"question {n}", f"question {n} ")]
    prompts = write_prompts(tmp_path / "prompts.jsonl", texts)
    answers = tmp_path / "answers.jsonl"
    found = [{"prompt": text, "responses": [{"text": "yes"}, {"text": "no"}]} for text in texts]
    answers.write_text("".join(json.dumps(row) + "\n" for row in found))
    run = small_run(
        *(tmp_path / "run", model_with(tmp_path / "model", TRIMMING), prompts),
        eval_prompts=2,
        generate__num_prompts=None,
        generate__responses=str(answers),
    )
    said = in_words(done(*on(run, "generate"), "--quiet").stderr)
    split = {row["prompt_id"]: (row["split"], row["prompt"].strip()) for row in rows(run / "prompts.jsonl")}
    held_out = {text for part, text in split.values() if part == "eval"}
    drawn = json.loads((run / "iter-001" / "generate" / "prompts.json").read_bytes())["prompt_ids"]
    leaking = [name for name, (part, text) in split.items() if part == "train" and text in held_out]
    assert leaking
    used = [name for name, (part, _) in sorted(split.items()) if part == "train" and name not in leaking]
    first = {text: name for name, (_, text) in reversed(split.items()) if name in used}
    assert sorted(drawn) == sorted(first.values())
    assert len(rows(run / "pool" / "responses.jsonl")) == 2 * len(first) + 2 * len(held_out)
    assert (
        f"left out {2 * len(leaking)} responses to prompts of the pool that the model reads as it reads held-out"
        in said
    )
    others = [text for part, text in split.values() if part == "train" and text not in held_out]
    assert f"the model reads {len(others) - len(set(others))} prompts of the pool as it reads others" in said
    strict = small_run(
        *(tmp_path / "strict", tmp_path / "model", prompts),
        eval_prompts=2,
        generate__responses=str(answers),
        prompts__duplicates="error",
    )
    assert "as it reads another one" in in_words(refused(4, *on(strict, "generate"), "--quiet"))
    assert not (strict / "iter-001").exists()


def test_what_is_recorded_about_prompts_that_read_alike_is_about_one(tmp_path: Path) -> None:
    """Votes and scores are put together, and prompts that only the file of responses spells otherwise are found."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", ["one", "one ", "two", "three"])
    answers = tmp_path / "answers.jsonl"
    spelled = {"one": "yes", "one ": "no", " two": "yes", "three": "yes", "four": "yes"}
    found = [{"prompt": p, "responses": [{"text": t, "s": n}, "else"]} for n, (p, t) in enumerate(spelled.items())]
    found.append({"prompt": "one\n", "response": "yes", "s": 10})
    answers.write_text("".join(json.dumps(row) + "\n" for row in found))
    run = small_run(
        *(tmp_path / "run", model_with(tmp_path / "model", TRIMMING), prompts),
        eval_prompts=0,
        generate__num_prompts=None,
        generate__responses=str(answers),
    )
    said = in_words(done(*on(run, "generate"), "--quiet").stderr)
    assert "the model reads 1 prompt of the pool as it reads others: `p000001` as `p000000`" in said
    kept = [(row["prompt_id"], row["text"], row["scores"]) for row in rows(run / "pool" / "responses.jsonl")]
    assert kept == [
        *[("p000000", "yes", {"s": 5.0}), ("p000000", "else", None), ("p000000", "no", {"s": 1.0})],
        *[("p000002", "yes", {"s": 2.0}), ("p000002", "else", None)],
        *[("p000003", "yes", {"s": 3.0}), ("p000003", "else", None)],
    ]
    facts = json.loads((run / "pool" / "manifest.json").read_bytes())["summary"]
    assert (facts["prompts_without_responses"], facts["unmatched_prompts_in_file"]) == (0, 1)


def test_pairs_about_prompts_that_read_alike_are_offered_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spelled = ["Name a fruit.", " Name a fruit.", "Name a fruit.\n", "Name a fruit. "]
    sides = [("fig", "no"), ("no", "fig"), ("fig", "no"), ("fig", "plum")]
    found = [{"prompt": p, "chosen": a, "rejected": b} for p, (a, b) in zip(spelled, sides, strict=True)]
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    model = model_with(tmp_path / "model", TRIMMING)
    small = ("--set", "adapter.r=2", "--set", "featurize.proj_dim=16", "--quiet", "--output", "picked.jsonl")
    words = ("select", "--run", tmp_path / "run", "--pool", "pairs.jsonl", "--model", model, *small)
    assert "only 2 pairs of pairs.jsonl can be chosen" in in_words(refused(4, *words, "--budget", 3))
    said = in_words(done(*words, "--budget", 2).stderr)
    assert "4 rows of pairs.jsonl: 2 candidates; left out 2 repeated (lines 2, 3)" in said
    assert "the model reads 3 prompts of the pool as it reads others: `p000001` as `p000000`, `p000002` as" in said
    picked = [(row["row"], {row["response_a"], row["response_b"]}) for row in rows(Path("picked.jsonl"))]
    assert sorted(picked, key=lambda pair: pair[0]) == [(1, {"fig", "no"}), (4, {"fig", "plum"})]


def test_what_was_begun_does_not_go_on_with_other_prompts(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = encoding.encode_prompt
    make_partial(finished, 2, "generate", "responses-00001.jsonl")
    monkeypatch.setattr(encoding, "encode_prompt", lambda *given, **named: [*encode(*given, **named), 33])
    said = in_words(refused(3, *on(finished, "generate", iteration=2)))
    assert "answer prompts that are read otherwise now" in said
    assert "--iteration 2 --force" in said
    done(*on(finished, "generate", iteration=2), "--force", "--quiet")


def test_a_later_iteration_says_that_prompts_are_read_otherwise(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = encoding.encode_prompt
    monkeypatch.setattr(encoding, "encode_prompt", lambda *given, **named: [*encode(*given, **named), 33])
    said = done(*on(finished, "generate", iteration=3), "--quiet").stderr
    assert "prompts are read otherwise than in iteration 2" in in_words(said)


def test_a_started_answer_is_continued(tmp_path: Path) -> None:
    """The response goes on with it, in what is sampled, and in preferences for others the answer is whole."""
    started = [[user(f"A poem about {n}"), {"role": "assistant", "content": "Sure, "}] for n in range(14)]
    run = small_run(
        *(
            tmp_path / "run",
            model_with(tmp_path / "model", CHAT_TEMPLATE),
            write_prompts(tmp_path / "p.jsonl", started),
        ),
        **WITHOUT_GRADIENTS,
    )
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    for folder in ("iter-001/generate", "iter-001/evaluate", "reference/evaluate"):
        texts = read_by_the_model(run / folder).values()
        assert all(text.endswith("<eos>\n<turn>assistant\nSure, ") for text in texts)
    answers = {
        row["response_id"]: row["text"] for path in run.glob("iter-001/generate/responses-*") for row in rows(path)
    }
    for row in rows(run / "iter-001" / "label" / "preferences.jsonl"):
        assert [message["role"] for message in row["prompt"]] == ["user"]
        for side in ("chosen", "rejected"):
            assert row[side] == [{"role": "assistant", "content": "Sure, " + answers[row[f"{side}_id"]]}]


def test_what_a_template_says_of_an_answer_that_was_begun_is_told(tmp_path: Path) -> None:
    started = [
        [{"role": "system", "content": "Be short."}, user(str(n)), {"role": "assistant", "content": "Sure, "}]
        for n in range(14)
    ]
    model = model_with(tmp_path / "model", NO_SYSTEM + CHAT_TEMPLATE)
    run = small_run(tmp_path / "run", model, write_prompts(tmp_path / "p.jsonl", started))
    said = in_words(refused(4, *on(run, "generate"), "--quiet"))
    assert "System role not supported" in said
    assert "put its text at the beginning of the user's message" in said


def test_a_template_that_drops_what_was_started(tmp_path: Path) -> None:
    started = [[user(f"A poem about {n}"), {"role": "assistant", "content": "Sure, "}] for n in range(14)]
    template = CHAT_TEMPLATE.replace(
        "{{ message['content'] }}", "{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}"
    )
    run = small_run(
        tmp_path / "run", model_with(tmp_path / "model", template), write_prompts(tmp_path / "p.jsonl", started)
    )
    assert "an answer that the last message begins does not come out" in in_words(
        refused(4, *on(run, "generate"), "--quiet")
    )


def test_an_ended_answer_of_a_file_ends_as_the_template_ends_turns(tmp_path: Path) -> None:
    """Where sampling stops at that token, which need not be the tokenizer's end of a text.

    Then the tokens are those of the whole conversation in the template, as TRL makes them, but for what follows an end.
    """
    template = CHAT_TEMPLATE.replace("<eos>", "<turn>")
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = template
    texts = [f"question {n}" for n in range(6)]
    answers = tmp_path / "answers.jsonl"
    found = [{"prompt": text, "responses": [{"text": "yes"}, {"text": "no"}]} for text in texts]
    answers.write_text("".join(json.dumps(row) + "\n" for row in found))
    for name, stops, further, end in (
        ("both", [EOS, TURN], [], TURN),
        ("one", EOS, [], EOS),
        ("set", EOS, [TURN], TURN),
    ):
        model = save_small_model(tmp_path / f"{name}-model", tokenizer=tokenizer, eos_token_id=stops)
        run = small_run(
            *(tmp_path / name, model, write_prompts(tmp_path / "prompts.jsonl", texts)),
            eval_prompts=2,
            generate__num_prompts=4,
            generate__responses=str(answers),
            generate__recorded_eos=True,
            generate__stop_token_ids=further,
        )
        is_told = f"generate.stop_token_ids=[{TURN}]" in in_words(done(*on(run, "generate"), "--quiet").stderr)
        assert is_told is (end == EOS)
        made = rows(run / "pool" / "responses.jsonl")
        assert {row["token_ids"][-1] for row in made} == {end}
        for row in made if end == TURN else []:
            prompt = texts[int(row["prompt_id"][1:])]
            whole = [user(prompt), {"role": "assistant", "content": row["text"]}]
            theirs = tokenizer.apply_chat_template(whole, tokenize=False)
            assert tokenizer.decode(row["prompt_token_ids"] + row["token_ids"]) + "\n" == theirs


@pytest.mark.parametrize("further", [[], [TURN]])
def test_examples_end_where_the_settings_stop(tmp_path: Path, prompts_file: Path, further: list[int]) -> None:
    """The setting is one of *sft*, which tells of a turn's end at which no sampling would stop."""
    run = small_run(
        *(tmp_path / "run", model_with(tmp_path / "model", CHAT_TEMPLATE.replace("<eos>", "<turn>")), prompts_file),
        generate__stop_token_ids=further,
    )
    examples = tmp_path / "examples.jsonl"
    examples.write_text("".join(json.dumps({"prompt": "ab", "completion": "c" * n}) + "\n" for n in (3, 9, 5, 7)))
    said = in_words(done(*on(run, "sft"), "--data", examples, "--quiet").stderr)
    assert (f"--set generate.stop_token_ids=[{TURN}]" in said) is (not further)
    record = json.loads((run / "reference" / "sft" / "manifest.json").read_text())
    assert record["settings"]["generate.stop_token_ids"] == further
    assert record["summary"]["end_token_id"] == (TURN if further else EOS)
    other = [] if further else [TURN]
    differs = refused(3, *on(run, "sft"), "--data", examples, "--set", f"generate.stop_token_ids={other}")
    assert "generate.stop_token_ids  " in differs


def test_a_template_that_runs_into_an_error_of_python(tmp_path: Path, prompts_file: Path) -> None:
    model = model_with(tmp_path / "model", "{{ cycler().next() }}" + CHAT_TEMPLATE)
    said = in_words(refused(4, *on(small_run(tmp_path / "run", model, prompts_file), "generate"), "--quiet"))
    assert "the tokenizer's chat template refuses a prompt" in said


SYSTEM_AND_USER = [[{"role": "system", "content": "Be short."}, user(f"Is {n} prime?")] for n in range(14)]
USER = [[user(f"Is {n} prime?")] for n in range(14)]
OF_PARTS = CHAT_TEMPLATE.replace(
    "{{ message['content'] }}", "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}"
)
WITHOUT_SYSTEM = CHAT_TEMPLATE.replace("for message in messages", "for message in messages if message.role != 'system'")


@pytest.mark.parametrize(
    ("template", "prompts", "says"),
    [(OF_PARTS, USER, "message 1, of the user"), (WITHOUT_SYSTEM, SYSTEM_AND_USER, "message 1, of the system")],
)
def test_a_template_that_leaves_a_text_out(tmp_path: Path, template: str, prompts: list[object], says: str) -> None:
    model = model_with(tmp_path / "model", template)
    run = small_run(tmp_path / "run", model, write_prompts(tmp_path / "prompts.jsonl", prompts))
    said = in_words(refused(4, *on(run, "generate"), "--quiet"))
    assert f"the chat template leaves out the text of {says}" in said
    assert not (run / "iter-001").exists()


def test_a_run_reads_its_own_preferences_with_its_template_arguments(tmp_path: Path, prompts_file: Path) -> None:
    """As a pool, as what a recorded oracle says, as examples of *sft* and as held-out preferences, and as it made them."""
    model = model_with(tmp_path / "model", THINKING)
    arguments = WITHOUT_GRADIENTS | {"prompts__template_kwargs": ["enable_thinking=false"]}
    longer = {"select__max_per_prompt": 1, "generate__max_new_tokens": 16, "generate__stop_token_ids": []}
    first = small_run(tmp_path / "first", model, prompts_file, **longer, **arguments)
    for stage in ("generate", "featurize", "select", "label"):
        done(*on(first, stage), "--quiet")
    own = first / "iter-001" / "label" / "preferences.jsonl"
    second = small_run(tmp_path / "second", model, own, "recorded", eval_prompts=1, **arguments)
    done(*on(second, "sft"), "--data", own, "--quiet")
    words = ("--responses", own, "--num-prompts", 2, "--set", f"evaluate.preferences={own}", "--budget", 2)
    done(*on(second, "run"), *words, "--iterations", 1, "--quiet", "--no-report")
    read = {row["prompt_id"]: row["prompt_token_ids"] for row in rows(second / "pool" / "responses.jsonl")}
    sampled = [row for path in first.glob("iter-001/generate/responses-*") for row in rows(path)]
    assert {tuple(ids) for ids in read.values()} <= {tuple(row["prompt_token_ids"]) for row in sampled}
    metrics = json.loads((second / "iter-001" / "evaluate" / "metrics.json").read_text())
    assert metrics["preference_pairs"] == 1, "those of prompts of the pool are left out"


def test_template_arguments_of_a_file_that_are_not_the_runs_are_refused_with_both(
    tmp_path: Path, prompts_file: Path
) -> None:
    run = small_run(tmp_path / "run", model_with(tmp_path / "model", THINKING), prompts_file)
    path = tmp_path / "rows.jsonl"
    row = {"prompt": "hi", "chosen": "a", "rejected": "b", "chat_template_kwargs": {"enable_thinking": 0}}
    path.write_text(json.dumps(row) + "\n")
    for words in (("generate", "--responses"), ("sft", "--data")):
        said = in_words(refused(4, *on(run, words[0]), words[1], path))
        assert (
            "`chat_template_kwargs` is {'enable_thinking': 0}, and prompts.template_kwargs of the run says {}" in said
        )
        assert "make the run with `--set 'prompts.template_kwargs=[enable_thinking=0]'`" in said
    words = ("init", "--run", tmp_path / "other", "--model", "tiny", "--eval-prompts", 0, "--prompts", path)
    assert "says {'enable_thinking': False}" in in_words(
        refused(4, *words, "--set", "prompts.template_kwargs=[enable_thinking=false]")
    )


def test_arguments_without_a_template_are_not_written(tmp_path: Path, small_model: Path, prompts_file: Path) -> None:
    arguments = WITHOUT_GRADIENTS | {"prompts__template_kwargs": ["enable_thinking=false"]}
    run = small_run(tmp_path / "run", small_model, prompts_file, **arguments)
    for stage in ("generate", "featurize", "select", "label"):
        done(*on(run, stage), "--quiet")
    found = rows(run / "iter-001" / "label" / "preferences.jsonl")
    assert found
    assert not any("chat_template_kwargs" in row for row in found)
