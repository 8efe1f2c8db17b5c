"""`activedpo export` of a policy: others read it and compute what the run does, and nothing is lost or half there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import honest_policy
import pytest
import torch
import yaml
from command_line import STAGES, done, list_again, manifest, on, refused, rows, snapshot
from hub_server import TOKEN, Hub, serving
from model_families import save_family
from safetensors.torch import load_file
from small_models import CHAT_TEMPLATE, save_small_model
from small_runs import small_run
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig, PretrainedConfig

from activedpo_cli.models import quantization
from activedpo_cli.models.shipping import usage_of
from activedpo_cli.run import policy_export
from activedpo_cli.run.cards import is_dataset_card
from activedpo_cli.run.policy_facts import origin_of, public_name
from activedpo_cli.store.operations import operations
from activedpo_cli.store.run import Run

ADAPTER_FILES = {
    "adapter_config.json",
    "adapter_model.safetensors",
    "generation_config.json",
    "README.md",
    "manifest.json",
}


def exported(run: Path, *words: object) -> dict[str, Any]:
    return json.loads(done(*on(run, "export"), *words, "--json").stdout)


def logps(model: torch.nn.Module, responses: list[dict[str, Any]]) -> torch.Tensor:
    """Of each response, one at a time and without a batch."""
    found = []
    for row in responses:
        ids = torch.tensor([row["prompt_token_ids"] + row["token_ids"]])
        with torch.no_grad():
            each = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
        start = len(row["prompt_token_ids"]) - 1
        found.append(each[start:].gather(1, ids[0, start + 1 :, None]).sum())
    return torch.stack(found)


def as_printed(found: dict[str, Any]) -> Any:
    """The model that the printed lines of Python load."""
    names: dict[str, Any] = {}
    exec(found["python"], names)
    return (names["write"].model if "write" in names else names["model"]).eval()


def front_matter(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.parametrize("words", [(), ("--merged",), ("--iteration", 1)])
def test_libraries_that_know_nothing_of_us_compute_the_same(finished: Path, words: tuple[object, ...]) -> None:
    found = exported(finished, *words)
    iteration = 1 if "--iteration" in words else 2
    assert (found["iteration"], found["state"]) == (iteration, "done")
    folder = Path(found["folder"])
    assert folder == finished / "export" / f"iter-{iteration:03d}-{'merged' if '--merged' in words else 'adapter'}"
    theirs = as_printed(found)
    ours = honest_policy.load(finished, finished / f"iter-{iteration:03d}/train/adapter")
    some = [row for row in rows(finished / "iter-002/generate/responses-00000.jsonl") if row["token_ids"]]
    torch.testing.assert_close(logps(theirs, some), logps(ours, some), rtol=1e-5, atol=1e-4)
    base = AutoModelForCausalLM.from_pretrained(json.loads((finished / "reference/base.json").read_text())["path"])
    assert (logps(base, some) - logps(ours, some)).abs().max() > 0.01, "else it would be no test"
    assert len(AutoTokenizer.from_pretrained(folder)) == 260
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 257
    assert found["serve"].startswith("vllm serve ")
    assert str(folder) in found["serve"]


def test_again_there_is_nothing_to_do(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(exported(finished)["folder"])
    assert {path.name for path in folder.iterdir()} >= ADAPTER_FILES
    assert (folder / "adapter_model.safetensors").read_bytes() == (
        finished / "iter-002/train/adapter/adapter_model.safetensors"
    ).read_bytes()
    (folder / "README.md").write_text("license: mine\n")  # a card is a person's own
    before = snapshot(finished)
    monkeypatch.setattr(policy_export, "load_reference", None)  # no model is loaded
    assert exported(finished)["state"] == "up to date"
    assert snapshot(finished) == before
    assert "is sound" in done("verify", "--run", finished).stdout


def test_the_card_says_what_the_artifacts_say(finished: Path) -> None:
    folder = Path(exported(finished, "--merged")["folder"])
    text = (folder / "README.md").read_text()
    measured, labels = manifest(finished, 2, "evaluate"), [manifest(finished, t, "label") for t in (1, 2)]
    spent = sum(record["summary"]["labels_spent"] for record in labels)
    assert f"| labels spent in all | {spent} |" in text
    assert f"{measured['summary']['reward_mean']:.3f}" in text
    assert f"{measured['summary']['win_rate']:.3f}" in text
    assert f"{measured['summary']['kl_to_reference']:.3f}" in text
    assert "by activedpo" in text
    assert "by python:letter_rule:score" in text
    made_from = json.loads((folder / "manifest.json").read_text())["inputs"]
    for name in ("iter-001/label", "iter-002/select", "iter-002/train", "iter-002/evaluate"):
        assert made_from[name][:23] in text
    assert "license" not in front_matter(folder)
    assert front_matter(folder)["library_name"] == "transformers"
    assert "base_model" not in front_matter(folder), "it is a folder, which the hub would refuse as a name"
    assert str(finished.parent) not in text
    assert str(Path.home()) not in text


def test_who_answered_is_told_as_it_was(finished: Path) -> None:
    """Answers that were turned around, and people beside a judge, are no small print."""
    path = finished / "iter-001/label/manifest.json"
    record = json.loads(path.read_text())
    record["settings"]["label.noise"] = 0.25
    record["summary"] |= {"oracle": "mixed:org/judge", "people": {"pairs": 3, "of": 4, "share": 0.75}}
    path.write_text(json.dumps(record))
    (answered, *_) = [fact for fact in origin_of(Run.open(finished), 1).facts if fact.source == "iter-001/label"]
    assert answered.value.startswith("by mixed:org/judge: ")
    assert answered.value.endswith("; people answered 3 of 4; 0.25 of the preferences were turned around, to try noise")
    record["summary"] |= {"oracle": "human", "people": None}
    path.write_text(json.dumps(record))
    assert origin_of(Run.open(finished), 1).facts[2].value.startswith("by people: ")


def test_how_it_was_trained_is_told_where_it_is_not_the_usual_way(finished: Path) -> None:
    """After training from the initial model anew, what earlier iterations trained is in no policy."""
    usual = [fact.value for fact in origin_of(Run.open(finished), 2).facts if fact.source == "iter-002/train"]
    path = finished / "iter-002/train/manifest.json"
    record = json.loads(path.read_text())
    settings = {"labels": "all", "start": "reference", "loss_type": "robust", "label_smoothing": "overlap"}
    record["settings"] |= {f"train.{key}": value for key, value in settings.items()} | {"adapter.use_rslora": True}
    record["summary"]["wrong_answers"] = {"share": 0.125}
    path.write_text(json.dumps(record))
    labels = finished / "iter-002/label/manifest.json"
    labels.write_text(labels.read_text().replace('"label.answer": "argmax"', '"label.answer": "bradley-terry"'))
    facts = {fact.source: fact.value for fact in origin_of(Run.open(finished), 2).facts if "2: " in fact.name}
    for words in (
        "of all iterations so far in ",
        "begun at the initial model",
        "loss robust with 0.125 of the labels taken for wrong",
        "rank-stabilised LoRA of rank 2, alpha 8",
    ):
        assert words in facts["iter-002/train"]
        assert words not in usual[0]
    assert facts["iter-002/label"].endswith("; answers were drawn from scores by Bradley–Terry at temperature 1")


def test_what_was_not_measured_is_left_out(finished: Path) -> None:
    """An evaluation of another adapter than the one that goes out is none of it; one that comes later goes in."""
    shutil.rmtree(finished / "iter-002/evaluate")
    found = exported(finished)
    text = (Path(found["folder"]) / "README.md").read_text()
    assert "reward by" not in text
    assert "`evaluate` of iteration 2 is missing" in found["notes"][0]
    done(*on(finished, "evaluate", iteration=2), "--quiet")
    found = exported(finished)
    assert found["state"] == "done"
    assert any("iter-002/evaluate" in note for note in found["notes"])
    assert "reward by" in (Path(found["folder"]) / "README.md").read_text()
    done(*on(finished, "train", iteration=2), "--force", "--learning-rate", 0.02, "--quiet")
    found = exported(finished)
    assert "reward by" not in (Path(found["folder"]) / "README.md").read_text()
    assert "is stale" in found["notes"][0]


def test_nothing_of_anybody_is_overwritten(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    words = (*on(finished, "export"), "--output", out)
    before = snapshot(out)
    said = refused(3, *words)
    assert "it holds `thesis.txt`" in said
    assert snapshot(out) == before
    assert "kept as" in done(*words, "--force").stderr
    (kept,) = tmp_path.glob("out.before-*")
    assert (kept / "thesis.txt").read_text() == "years of work"
    with (out / "README.md").open("a") as stream:
        stream.write("my own words\n")
    said = refused(3, *words, "--base", "org/base")
    assert "README.md: it has" in said
    assert "/llama → org/base" in said
    shutil.copy(out / "README.md", out / "adapter_config.json")
    assert "adapter_config.json" in refused(3, *words)
    monkeypatch.chdir(out)
    assert "the folder that you are in" in refused(2, *words)
    assert "holds the run" in refused(2, *on(finished, "export"), "--output", finished.parent)
    assert "lies in the run" in refused(2, *on(finished, "export"), "--output", finished / "iter-001")


def test_killed_at_any_change_no_folder_looks_whole(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the last rename nothing is there; after it all of it is. What was there before stays, or has given way."""
    place = finished / "export/iter-002-adapter"
    exported(finished)
    whole = {name: digest for name, (digest, _) in snapshot(place).items() if name != "manifest.json"}
    shutil.rmtree(finished / "iter-002/evaluate")  # so that another card is wanted
    plain, number = operations.rename, 0

    class Killed(BaseException):
        """As a signal that nobody can catch."""

    while True:
        left = number

        def rename(source: Path, destination: Path) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            plain(source, destination)

        monkeypatch.setattr(operations, "rename", rename)
        try:
            policy_export.export_policy(
                Run.open(finished),
                policy_export.PolicyRequest(),
                policy_export.Execution(),
                policy_export.Progress(),
            )
            break
        except Killed:
            number += 1
        if place.exists():
            found = {name: digest for name, (digest, _) in snapshot(place).items() if name != "manifest.json"}
            assert found.keys() == whole.keys()
            assert {**found, "README.md": ""} == {**whole, "README.md": ""}
    assert number > 3
    monkeypatch.undo()
    assert exported(finished)["state"] == "up to date"
    assert [path.name for path in place.parent.iterdir() if path.name not in (".locks", place.name)] == []


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_what_computes_something_else_never_appears(finished: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from activedpo_cli.models import merging, shipping

    if form == "merged":
        monkeypatch.setattr(merging, "merge_in_float32", lambda policy: policy.unload())
    else:
        plain = shipping.adapter_settings_for
        monkeypatch.setattr(
            shipping,
            "adapter_settings_for",
            lambda *given: plain(*given).replace(b'"lora_alpha": 8', b'"lora_alpha": 9'),
        )
    said = refused(4, *on(finished, "export"), *(["--merged"] if form == "merged" else []))
    assert "does not compute what the run's policy computes" in said
    assert not list((finished / "export").glob("[!.]*"))
    monkeypatch.undo()
    assert exported(finished)["state"] == "done"


def test_a_policy_that_is_trained_again_meanwhile_is_not_exported(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card would name the training before."""
    plain = policy_export.load_reference

    def load(*given: Any) -> Any:
        done(*on(finished, "train", iteration=2), "--force", "--learning-rate", 0.02, "--quiet")
        return plain(*given)

    monkeypatch.setattr(policy_export, "load_reference", load)
    assert "made again while" in refused(75, *on(finished, "export"))
    assert not list((finished / "export").glob("[!.]*"))


@pytest.mark.parametrize(("moved", "is_said"), [(0.02, True), (2.0, False)])
def test_rounding_as_large_as_what_was_learnt_is_told(
    finished: Path, monkeypatch: pytest.MonkeyPatch, moved: float, is_said: bool
) -> None:
    exported(finished, "--merged")
    path = finished / "export/iter-002-merged/manifest.json"
    record = json.loads(path.read_text())
    assert record["summary"]["moved_by_training"] > 0.01
    assert exported(finished, "--merged")["notes"] == []
    record["summary"] |= {"mean_difference": 0.01, "moved_by_training": moved}
    path.write_text(json.dumps(record))
    assert any("loses nothing" in note for note in exported(finished, "--merged")["notes"]) is is_said


def test_a_changed_adapter_is_not_exported(finished: Path) -> None:
    path = finished / "iter-002/train/adapter/adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    assert "adapter_model.safetensors" in refused(4, *on(finished, "export"))
    shutil.rmtree(finished / "iter-001/train")
    shutil.rmtree(finished / "iter-002")
    assert "no iteration" in refused(4, *on(finished, "export"))
    assert "`train` of iteration 1 is missing" in refused(4, *on(finished, "export", iteration=1))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(monkeypatch) as found:
        yield found


def test_push_is_private_whole_and_done_once(finished: Path, hub: Hub) -> None:
    words = (*on(finished, "export"), "--merged", "--push", "org/policy")
    result = done(*words)
    assert f"{hub.url}/org/policy" in result.stdout
    repository = hub.repositories["models/org/policy"]
    folder = finished / "export/iter-002-merged"
    assert repository.private is True
    assert repository.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    done(*words)
    assert repository.commits == 1, "what is there already makes no new version"
    assert f"Bearer {TOKEN}" in hub.tokens, "from the environment"
    assert TOKEN not in result.output
    assert not any(TOKEN.encode() in path.read_bytes() for path in finished.rglob("*") if path.is_file())
    for name, is_private in (("mine", True), ("theirs", False)):
        hub.repositories[f"models/org/{name}"] = type(repository)(is_private)
    assert "is public" in refused(3, *words[:-1], "org/theirs")
    assert not hub.repositories["models/org/theirs"].files
    assert "private before" in done(*words[:-1], "org/mine", "--public").stderr
    done(*words[:-1], "org/new", "--public")
    assert hub.repositories["models/org/new"].private is False
    hub.is_broken = True
    said = refused(1, *words[:-1], "org/other")
    assert "could not be pushed" in said
    assert TOKEN not in said


def test_a_repository_holds_no_part_of_another_export(finished: Path, hub: Hub) -> None:
    """Transformers would put an adapter that is there on its base, and pass over the whole weights beside it."""
    words = (*on(finished, "export"), "--push", "org/policy")
    done(*words, "--base", "org/base")
    files = hub.repositories["models/org/policy"].files
    files |= {"LICENSE": b"mine", "model-00001-of-00002.safetensors": b"", "model.safetensors.index.json": b"{}"}
    done(*words, "--merged")
    names = {path.name for path in (finished / "export/iter-002-merged").iterdir()}
    assert files.keys() == names | {"LICENSE"}
    done(*words, "--merged")
    assert hub.repositories["models/org/policy"].commits == 2
    done(*words, "--base", "org/base")
    assert files.keys() == {path.name for path in (finished / "export/iter-002-adapter").iterdir()} | {"LICENSE"}


def test_an_adapter_names_a_base_that_others_find(finished: Path, hub: Hub) -> None:
    said = refused(2, *on(finished, "export"), "--push", "org/adapter")
    assert "--iteration 0 --merged" in said
    assert not hub.repositories
    assert "on this machine alone" in done(*on(finished, "export")).stderr
    done(*on(finished, "export"), "--iteration", 0, "--merged", "--push", "org/base")
    found = exported(finished, "--base", "org/base", "--push", "org/adapter")
    files = hub.repositories["models/org/adapter"].files
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "org/base"
    lora = "--enable-lora --max-lora-rank 8 --lora-modules policy=org/adapter"
    assert found["serve"] == f"vllm serve org/base --dtype float32 {lora}"
    assert not any(str(finished.parent).encode() in data for data in files.values())


def test_a_base_of_the_hub_is_named_with_its_commit(
    tmp_path: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, cache = "c" * 40, tmp_path / "hub"
    save_small_model(cache / "models--acme--base" / "snapshots" / commit, num_hidden_layers=1)
    (cache / "models--acme--base" / "refs").mkdir()
    (cache / "models--acme--base" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    run = small_run(tmp_path / "run", "acme/base", prompts_file, train__include_ties=True)  # type: ignore[arg-type]
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    found = exported(run)
    settings = json.loads((Path(found["folder"]) / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == ("acme/base", commit)
    assert f"vllm serve acme/base --revision {commit} " in found["serve"]
    assert found["notes"] == []
    assert front_matter(Path(found["folder"]))["base_model"] == "acme/base"
    as_printed(found)
    assert front_matter(Path(exported(run, "--merged")["folder"]))["base_model_relation"] == "finetune"
    assert "as it is" in refused(2, *on(run, "export"), "--iteration", 0, "--merged")


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        pytest.param(
            "mixtral", {"adapter__target_modules": "all-linear", "model__dtype": "bfloat16"}, marks=pytest.mark.slow
        ),
        ("gpt2", {"adapter__target_modules": ["c_attn"], "model__dtype": "bfloat16"}),
        pytest.param("gemma3-text", {"model__dtype": "bfloat16"}, marks=pytest.mark.slow),  # tied embeddings
    ],
)
def test_other_architectures(tmp_path: Path, prompts_file: Path, family: str, settings: dict[str, Any]) -> None:
    model = save_family(tmp_path / "model", family)
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.add_tokens(["<no row>"], special_tokens=True)
    tokenizer.save_pretrained(model)
    rows_of_base = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().num_embeddings
    assert len(tokenizer) > rows_of_base
    run = small_run(tmp_path / "run", model, prompts_file, train__include_ties=True, **settings)
    done(*on(run, "run"), "--iterations", 1, "--quiet", "--no-report")
    for words in ((), ("--merged",)):
        found = exported(run, *words)
        assert found["check"]["mean_difference"] <= found["check"]["tolerance"]
        folder = Path(found["folder"])
        assert AutoTokenizer.from_pretrained(folder).chat_template == CHAT_TEMPLATE
        theirs = as_printed(found)
        assert theirs.dtype == torch.bfloat16, "of a checkpoint in float32"
        assert theirs.get_input_embeddings().num_embeddings == rows_of_base
        assert "--dtype bfloat16" in found["serve"]
        is_said = any("bare weights" in note for note in found["notes"])
        assert is_said is (family == "mixtral" and not words)
    weights = load_file(folder / "model.safetensors")
    expected = torch.bfloat16 if settings.get("model__dtype") == "bfloat16" else torch.float32
    assert {value.dtype for value in weights.values()} == {expected}
    AutoModelForCausalLM.from_pretrained(folder)


def test_what_can_not_be_done_is_refused(finished: Path) -> None:
    assert "adds nothing" in refused(2, *on(finished, "export"), "--iteration", 0)
    assert "leave one out" in refused(2, *on(finished, "export"), "--merged", "--base", "org/base")
    assert "--push ORG/NAME" in refused(2, *on(finished, "export"), "--public")
    assert "--base ORG/NAME" in refused(2, *on(finished, "export"), "--base", "/home/ann/model")
    assert "--base ORG/name" in refused(2, *on(finished, "export"), "--base", "name")
    assert "whose model" in refused(2, *on(finished, "export"), "--merged", "--push", "name")
    assert "--output FOLDER" in refused(2, *on(finished, "export"), "--format", "trl")
    for wrong in (["--merged"], ["--force"], ["--base", "a/b"], ["--iteration", 0]):
        said = refused(2, *on(finished, "export"), "--format", "trl", "--output", finished.parent / "x", *wrong)
        assert "is for the policy" in said
    for iteration, stage in ((t, stage) for t in (1, 2) for stage in STAGES):
        path = finished / f"iter-{iteration:03d}" / stage / "manifest.json"
        path.write_text(path.read_text().replace('"model.quantization": "none"', '"model.quantization": "4bit"'))
    list_again(finished, 2, "train")
    assert "a base in 4bit" in refused(3, *on(finished, "export"), "--merged")


@pytest.mark.parametrize("kind", ["4bit", "8bit"])
def test_a_quantized_base_is_loaded_as_the_run_loads_it(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_require_library", lambda: None)
    ours = quantization.loading_arguments(kind, PretrainedConfig(), "base", torch.device("cpu"))["quantization_config"]
    usage = usage_of("adapter", "policy", {"base_model_name_or_path": "base", "r": 8}, "float32", kind)
    (line,) = [line for line in usage.python.splitlines() if line.startswith("codes = ")]
    names: dict[str, Any] = {"BitsAndBytesConfig": BitsAndBytesConfig}
    exec(line, names)
    assert names["codes"].to_dict() == ours.to_dict()
    assert "dtype='float32', quantization_config=codes)" in usage.python
    assert "--quantization bitsandbytes --enable-lora" in usage.serve


def test_where_responses_are_gone_prompts_are_compared(finished: Path) -> None:
    shutil.rmtree(finished / "iter-002/generate")
    assert exported(finished)["check"]["texts"] == 8


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/home/ann/models/secret", "secret"),
        ("reward-model:/home/ann/rm", "reward-model:rm"),
        ("reward-model:org/rm", "reward-model:org/rm"),
        ("python:letter_rule:score", "python:letter_rule:score"),
        ("judge:gpt-5", "judge:gpt-5"),
        ("org/name", "org/name"),
        ("./here/model", "model"),
        ("a/b/c", "c"),
        (r"C:\Users\ann\model", "model"),
    ],
)
def test_no_folder_of_a_person_is_told(name: str, told: str) -> None:
    assert public_name(name) == told


def test_a_dataset_card_is_told_from_others() -> None:
    assert is_dataset_card("---\ntags:\n- activedpo\n- preference\nlicense: mit\n---\nText")
    assert not is_dataset_card("---\ntags:\n- activedpo\n- preference-optimization\n---\n- preference")
    assert not is_dataset_card("# My project, with activedpo and preference")
