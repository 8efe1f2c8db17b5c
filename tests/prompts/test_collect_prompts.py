"""Prompts are collected once each, in order, with a split that only the seed decides."""

import hashlib
import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.prompts import _collect
from activedpo_cli.prompts._collect import collect_prompts, source_path
from activedpo_cli.prompts.base import SourcePrompt
from activedpo_cli.prompts.tiny import ASSETS


def prompt_file(folder, prompts, name="prompts.jsonl", column="prompt"):
    path = folder / name
    path.write_text("".join(json.dumps({column: prompt}) + "\n" for prompt in prompts))
    return path


def collected(path, seed=0, **changes):
    return collect_prompts(PromptSettings(**{"source": str(path), "eval_prompts": 1, **changes}), seed)


def texts(collection):
    return [prompt.prompt for prompt in collection.prompts]


def test_ids_and_texts_follow_the_file(tmp_path):
    messages = [{"role": "user", "content": "b"}]
    path = prompt_file(tmp_path, ["a", messages, "c"])
    found = collected(path)
    assert texts(found) == ["a", messages, "c"]
    assert [prompt.prompt_id for prompt in found.prompts] == ["p000000", "p000001", "p000002"]
    assert sorted(prompt.split for prompt in found.prompts) == ["eval", "train", "train"]
    assert found.source_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.dropped_duplicates == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    prompts=st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=20).filter(lambda p: len(set(p)) > 3),
    seed=st.integers(0, 5),
    eval_prompts=st.integers(1, 3),
)
def test_every_distinct_prompt_is_kept_once(tmp_path, prompts, seed, eval_prompts):
    path = prompt_file(tmp_path, prompts)
    found = collected(path, seed, eval_prompts=eval_prompts)
    assert texts(found) == list(dict.fromkeys(prompts))
    assert sum(prompt.split == "eval" for prompt in found.prompts) == eval_prompts
    repeated = [number for number, prompt in enumerate(prompts) if prompt in prompts[:number]]
    assert found.dropped_duplicates == [f"prompts.jsonl line {number + 1}" for number in repeated]
    assert collected(path, seed, eval_prompts=eval_prompts) == found


def test_only_the_seed_decides_the_split(tmp_path):
    path = prompt_file(tmp_path, [f"prompt {number}" for number in range(50)])

    def held_out(seed):
        return [p.prompt_id for p in collected(path, seed, eval_prompts=10).prompts if p.split == "eval"]

    random.seed(1)
    first = held_out(0)
    random.seed(2)
    assert held_out(0) == first
    assert held_out(1) != first


def test_limit_draws_and_keeps_the_order(tmp_path):
    prompts = [f"prompt {number:02d}" for number in range(50)]
    path = prompt_file(tmp_path, prompts)
    found = collected(path, limit=10)
    assert len(found.prompts) == 10
    assert texts(found) == sorted(texts(found)) != prompts[:10]
    assert [prompt.prompt_id for prompt in found.prompts] == [f"p{number:06d}" for number in range(10)]
    assert texts(collected(path, 1, limit=10)) != texts(found)
    assert texts(collected(path, limit=90)) == prompts


def test_duplicates_can_be_an_error(tmp_path):
    path = prompt_file(tmp_path, ["a", "b", "a"])
    with pytest.raises(InvalidDataError, match=r"prompts\.jsonl line 3 repeats the prompt of prompts\.jsonl line 1"):
        collected(path, duplicates="error")


def test_a_text_and_the_message_that_holds_it_are_one_prompt(tmp_path):
    """A chat template makes the same of both, so that one of them held out would be seen in training."""
    user, system = ({"role": role, "content": "a"} for role in ("user", "system"))
    path = prompt_file(tmp_path, ["a", [user], [{"content": "a", "role": "user"}], [system], [user, user]])
    found = collected(path)
    assert len(found.prompts) == 3
    assert found.dropped_duplicates == ["prompts.jsonl line 2", "prompts.jsonl line 3"]


@pytest.mark.parametrize(("number", "hint"), [(10, "--eval-prompts 2"), (2, "--eval-prompts 1")])
def test_too_few_prompts_to_hold_out(tmp_path, number, hint):
    path = prompt_file(tmp_path, [str(n) for n in range(number)])
    with pytest.raises(InvalidDataError) as caught:
        collected(path, eval_prompts=number)
    assert caught.value.hint == hint
    collected(path, eval_prompts=int(hint.split()[1]))


@pytest.mark.parametrize("prompt", ["", "  \n", None, 3, [], [{"role": "user"}]])
def test_an_unusable_prompt_names_its_line(tmp_path, prompt):
    path = prompt_file(tmp_path, ["a", prompt, "b"])
    with pytest.raises(InvalidDataError, match=r"^prompts\.jsonl line 2"):
        collected(path)


def test_a_missing_column_suggests_the_nearest(tmp_path):
    path = prompt_file(tmp_path, ["a", "b"], column="promt")
    with pytest.raises(InvalidDataError, match="did you mean `promt`"):
        collected(path)
    assert texts(collected(path, column="promt")) == ["a", "b"]


def built_in(split):
    return (ASSETS / f"prompts-{split}.txt").read_text().splitlines()


def test_built_in_prompts_are_held_out_from_their_own_part():
    found = collected("tiny", eval_prompts=40)
    held_out = [row.prompt for row in found.prompts if row.split == "eval"]
    pool = [row.prompt for row in found.prompts if row.split == "train"]
    assert pool == built_in("train")
    assert len(held_out) == 40
    assert set(held_out) <= set(built_in("eval"))
    assert [row.prompt_id for row in found.prompts] == [f"p{number:06d}" for number in range(1040)]
    assert found.dropped_duplicates == []
    assert found.source_digest is None
    other = [row.prompt for row in collected("tiny", eval_prompts=40, seed=1).prompts if row.split == "eval"]
    assert set(other) != set(held_out)


def test_a_limit_leaves_the_held_out_part_whole():
    found = collected("tiny", eval_prompts=40, limit=50)
    assert len(found.prompts) == 50
    assert sum(row.split == "eval" for row in found.prompts) == 40
    assert {row.prompt for row in found.prompts if row.split == "train"} < set(built_in("train"))
    with pytest.raises(InvalidDataError, match="a limit of 40 prompts leaves none beside 40"):
        collected("tiny", eval_prompts=40, limit=40)


def test_more_held_out_prompts_than_were_meant_for_it():
    with pytest.raises(InvalidDataError, match="`tiny` has 200 prompts for evaluation, fewer than 201"):
        collected("tiny", eval_prompts=201)


@pytest.mark.parametrize("splits", [["eval", "eval"], ["train", "train"], ["eval", None, "train"], [None, "train"]])
def test_splits_that_do_not_make_a_pool_and_a_held_out_part(monkeypatch, splits):
    def read(settings, path, skip_empty):
        return iter([SourcePrompt(prompt=str(n), origin="here", split=split) for n, split in enumerate(splits)])

    monkeypatch.setattr(_collect, "_read_source", read)
    with pytest.raises(InvalidDataError, match="prompts for the pool and"):
        collected("tiny")


def split_file(folder, splits, name="prompts.jsonl", key="part"):
    path = folder / name
    path.write_text("".join(json.dumps({"prompt": prompt, key: split}) + "\n" for prompt, split in splits))
    return path


def held_out(collection):
    return [row.prompt for row in collection.prompts if row.split == "eval"]


def test_files_that_mark_the_same_prompts_hold_out_the_same(tmp_path):
    shared = [(f"held out {number}", "eval") for number in range(20)]
    one = split_file(tmp_path, [(f"a{number}", "train") for number in range(5)] + shared, "one.jsonl")
    two = split_file(tmp_path, shared + [(f"b{number}", "train") for number in range(9)], "two.jsonl")
    for seed in range(3):
        drawn = [collected(path, seed, eval_prompts=10, split_column="part") for path in (one, two)]
        assert held_out(drawn[0]) == held_out(drawn[1])
        assert len(held_out(drawn[0])) == 10
        assert {row.prompt for row in drawn[0].prompts if row.split == "train"} == {f"a{n}" for n in range(5)}
    assert held_out(collected(one, 0, eval_prompts=10, split_column="part")) != held_out(drawn[0]), "the seed draws"
    with pytest.raises(InvalidDataError, match="has 20 prompts for evaluation, fewer than 21") as caught:
        collected(one, eval_prompts=21, split_column="part")
    assert caught.value.hint == "--eval-prompts 20"


def test_a_split_column_of_a_spreadsheet(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,split\na,train\nb,eval\nc,train\n")
    assert held_out(collected(path, split_column="split")) == ["b"]
    assert len(held_out(collected(path, eval_prompts=2))) == 2, "no column is looked for that was not asked for"


@pytest.mark.parametrize("value", ["test", "Eval", "", None, 1, ["eval"]])
def test_a_split_that_is_none_names_its_line(tmp_path, value):
    path = split_file(tmp_path, [("a", "train"), ("b", value), ("c", "eval")])
    with pytest.raises(InvalidDataError, match=r"^prompts\.jsonl line 2: `part` is .*neither `train` nor `eval`$"):
        collected(path, split_column="part")


def test_a_split_column_that_is_missing_suggests_the_nearest(tmp_path):
    path = split_file(tmp_path, [("a", "train"), ("b", "eval")], key="split")
    with pytest.raises(InvalidDataError, match=r"line 1 has no field `splt` — did you mean `split`") as caught:
        collected(path, split_column="splt")
    assert caught.value.hint == "--split-column NAME"


def test_a_prompt_can_not_be_in_both_parts(tmp_path):
    path = split_file(tmp_path, [("a", "train"), ("b", "eval"), ("a", "train"), ("b", "train")])
    with pytest.raises(
        InvalidDataError, match=r"line 4 repeats the prompt of prompts\.jsonl line 2, and is for `train`"
    ):
        collected(path, split_column="part")
    path = split_file(tmp_path, [("a", "train"), ("b", "eval"), ("a", "train")])
    assert collected(path, split_column="part").dropped_duplicates == ["prompts.jsonl line 3"]


@pytest.mark.parametrize("source", ["tiny", "owner/name"])
def test_only_a_file_has_a_split_column(source):
    with pytest.raises(UsageError, match=f"`{source}` is no file") as caught:
        collected(source, split_column="part")
    assert caught.value.hint == "--prompts FILE.jsonl"


def test_what_a_source_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").touch()
    (tmp_path / "notes").touch()
    (tmp_path / "owner").mkdir()
    (tmp_path / "owner" / "data").mkdir()
    means_file = {name: source_path(name) is not None for name in ("tiny", "notes", "gone", "gone.csv", "./gone")}
    assert means_file == {"tiny": False, "notes": True, "gone": False, "gone.csv": True, "./gone": True}
    assert source_path("owner/data") is not None
    assert source_path("owner/other") is None


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(UsageError, match="did you mean `tldr`") as caught:
        collected("tlrd")
    assert any(".jsonl" in line for line in caught.value.details)
    assert any("OWNER/NAME" in line for line in caught.value.details)


def test_an_owner_and_a_name_go_to_the_hub(monkeypatch):
    asked = []

    def read_hub(dataset_id, split, column, template_kwargs):
        asked.append((dataset_id, split, column))
        return iter([SourcePrompt(prompt=text, origin="") for text in "abc"])

    monkeypatch.setattr(_collect, "read_hub", read_hub)
    assert texts(collected("owner/name", dataset_split="test", column="text")) == ["a", "b", "c"]
    assert asked == [("owner/name", "test", "text")]


def test_a_folder_is_refused_as_one_without_a_slash_in_its_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_info.json").write_text("{}")
    with pytest.raises(InvalidDataError, match="saved is a folder, not a file") as caught:
        collected("saved")
    assert "load_from_disk" in caught.value.hint
