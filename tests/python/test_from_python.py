"""What notebooks import: it says what the commands say, TRL reads the rows that it reads, and its names stay."""

import doctest
import importlib
import inspect
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import honest_policy as honest
import pandas
import pytest
import torch
from command_line import done, manifest, on, rows
from peft import PeftModel
from safetensors.torch import load_file
from small_models import byte_tokenizer, save_small_model
from small_policies import ADAPTER, disturb, load
from transformers import AutoTokenizer

import activedpo_cli
from activedpo_cli import ActiveDPOError, Choice, Features, Run, choose, featurize, read_run
from activedpo_cli.base import discovery
from activedpo_cli.base.config import flat
from activedpo_cli.base.errors import InvalidDataError, NotReadyError, UsageError
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import Config, FeaturizeSettings
from activedpo_cli.models.adapters import with_fresh_adapter
from activedpo_cli.python.rows import read_rows

PACKAGE = Path(activedpo_cli.__file__).parent
PROMISED = {
    "choose": "features pairs=None *budget *method='activedpo' *labelled=None *max_per_prompt=None *normalise='response' "
    "*beta=0.1 *settings=None *generator=None",
    "featurize": "model tokenizer rows *method='activedpo' *columns=() *proj_dim=8192 *projection='factored' "
    "*projection_width=1 *seed=0 *append_eos=True *tokens_per_batch=2048 *gradient_checkpointing=False *progress=None",
    "read_run": "path=None",
    "Features": "*columns *pairs *preferred=None *prompt_index=None *texts=None *times_sampled=None *excluded=() "
    "*made_with=None",
    "Features.with_columns": "self **columns",
    "Features.with_pairs": "self pairs preferred=None",
    "Choice": "*method *indices *pairs *scores",
    "Run.adapter": "self iteration=None",
    "Run.choices": "self iteration=None",
    "Run.evaluations": "self",
    "Run.preferences": "self iteration=None",
    "Run.reference": "self",
    "Run.responses": "self iteration=None",
    "Records.to_dataset": "self",
    "Records.to_pandas": "self",
}
"""What somebody may have written already: names, order, and defaults. What is added stands behind it, with a default."""


def signature(name: str) -> str:
    """`a b=1 *c`: by place, with a default, by name alone."""
    found: Any = activedpo_cli
    for part in name.split("."):
        found = getattr(found, part)
    marks = {inspect.Parameter.KEYWORD_ONLY: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return " ".join(
        marks.get(p.kind, "") + p.name + ("" if p.default is p.empty else f"={p.default!r}")
        for p in inspect.signature(found).parameters.values()
    )


@pytest.mark.parametrize("name", PROMISED)
def test_a_promised_signature_stays(name: str) -> None:
    assert signature(name) == PROMISED[name]


def test_promised_names_stay() -> None:
    names = {"ActiveDPOError", "Choice", "Features", "Records", "Run", "choose", "featurize", "read_run"}
    assert set(activedpo_cli.__all__) == set(activedpo_cli.PLACES) == names
    assert names < set(dir(activedpo_cli))
    assert [field.name for field in fields(Choice)] == ["method", "indices", "pairs", "scores"]
    assert {"path", "iterations", "settings"} < set(vars(Run))
    with pytest.raises(AttributeError, match="no attribute 'fetaurize'"):
        _ = activedpo_cli.fetaurize


def test_no_public_name_is_that_of_a_module() -> None:
    """Importing such a module would put it in the name's place."""
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(activedpo_cli.__all__)


def test_an_import_is_light_and_reading_loads_no_torch() -> None:
    code = (
        "import sys, activedpo_cli\n"
        "assert not {'torch', 'typer', 'pydantic'} & set(sys.modules)\n"
        "from activedpo_cli import read_run\n"
        "assert read_run and 'torch' not in sys.modules\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize("name", ["features", "choosing"])
def test_examples_in_docstrings(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"activedpo_cli.python.{name}"))
    assert found.attempted
    assert not found.failed


def test_defaults_are_those_of_the_settings() -> None:
    given = inspect.signature(featurize).parameters
    ours = FeaturizeSettings()
    for name in ("proj_dim", "projection", "projection_width", "tokens_per_batch", "gradient_checkpointing"):
        assert given[name].default == getattr(ours, name)
    choice = inspect.signature(choose).parameters
    assert (choice["method"].default, choice["normalise"].default) == (
        Config().select.method,
        Config().select.normalise,
    )
    assert choice["beta"].default == Config().train.beta


def policy_of(run: Run, iteration: int) -> tuple[PeftModel, Any]:
    """The policy before an iteration, as a notebook loads it."""
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(**run.reference())
    tokenizer = AutoTokenizer.from_pretrained(run.reference()["pretrained_model_name_or_path"])
    return PeftModel.from_pretrained(base, run.adapter(iteration - 1)), tokenizer


def test_features_and_choice_are_those_of_the_commands(finished_original: Path) -> None:
    """Of iteration 2, whose policy was trained and whose V holds the pairs labelled before."""
    run = read_run(finished_original)
    folder = finished_original / "iter-002"
    policy, tokenizer = policy_of(run, 2)
    config = run.settings
    how = {"proj_dim": config["featurize.proj_dim"], "seed": config["seed"]}
    how |= {"tokens_per_batch": config["featurize.tokens_per_batch"]}
    stored = [load_file(path)["features"] for path in sorted(folder.glob("featurize/features-*.safetensors"))]
    index = {row["response_id"]: row["row"] for row in rows(folder / "featurize/rows.jsonl")}
    responses = [row for row in run.responses(2) if row["response_id"] in index]
    found = featurize(policy, tokenizer, responses, **how)
    theirs = torch.cat(stored)[[index[row["response_id"]] for row in responses]]
    assert torch.allclose(found.columns["features"], theirs, rtol=1e-4, atol=1e-5), "but for the batch's rounding"
    answered = rows(finished_original / "iter-001/label/outcomes.jsonl")
    before = {row["response_id"]: row for row in run.responses(1)}
    sides = [before[row[f"response_{side}_id"]] for row in answered for side in "ab"]
    preferred = [
        0 if not row["preferred_id"] else 1 if row["preferred_id"] == row["response_a_id"] else -1 for row in answered
    ]
    pairs = [(2 * place, 2 * place + 1) for place in range(len(answered))]
    labelled = featurize(policy, tokenizer, sides, **how).with_pairs(pairs, preferred)
    generator = torch.Generator().manual_seed(derive_seed(config["seed"], "select", 2))
    chosen = choose(found, budget=config["select.budget"], labelled=labelled, generator=generator)
    picked = run.choices(2)
    names = [[responses[row]["response_id"] for row in pair] for pair in chosen.pairs.tolist()]
    assert names == [[row["response_a_id"], row["response_b_id"]] for row in picked]
    assert chosen.scores.tolist() == pytest.approx([row["score"] for row in picked], rel=1e-4)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> PeftModel:
    folder = save_small_model(tmp_path_factory.mktemp("python") / "model", num_hidden_layers=1)
    return disturb(with_fresh_adapter(load(folder), ADAPTER, seed=0))


TEXTS = [{"prompt": f"Count {n}", "chosen": f" one {n}", "rejected": " two"} for n in range(5)]
CHATS = [
    {
        "prompt": [{"role": "user", "content": row["prompt"]}],
        "chosen": [{"role": "assistant", "content": row["chosen"]}],
        "rejected": [{"role": "assistant", "content": row["rejected"]}],
    }
    for row in TEXTS
]
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.mark.parametrize(("given", "template"), [(TEXTS, None), (TEXTS, TEMPLATE), (CHATS, TEMPLATE)])
def test_tokens_are_those_that_trl_trains_on(policy: Any, tmp_path: Path, given: Any, template: str | None) -> None:
    """A text is read as it is even where there is a chat template, as in TRL."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    options = DPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False)
    trainer = DPOTrainer(
        policy.base_model.model, args=options, train_dataset=Dataset.from_list(given), processing_class=tokenizer
    )
    ours = read_rows(given, tokenizer, None, append_eos=True).tokens
    theirs = [
        (row["prompt_ids"], row[f"{side}_ids"]) for row in trainer.train_dataset for side in ("chosen", "rejected")
    ]
    assert ours == theirs


def test_log_probabilities_are_transformers_own_and_the_model_stays_as_it_was(policy: PeftModel) -> None:
    policy.train()
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("lora_A" in name)
    before = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    tokenizer, told = byte_tokenizer(), []
    found = featurize(
        policy,
        tokenizer,
        TEXTS,
        method=["activedpo", "small-margin"],
        proj_dim=16,
        progress=lambda *at: told.append(at),
    )
    assert told == [(10, 10)]
    assert policy.training
    assert {name: parameter.requires_grad for name, parameter in policy.named_parameters()} == before
    assert all(parameter.grad is None for parameter in policy.parameters())
    policy.eval()
    answers = [
        {
            "prompt_token_ids": tokenizer(row["prompt"])["input_ids"],
            "token_ids": [*tokenizer(row[side])["input_ids"], tokenizer.eos_token_id],
        }
        for row in TEXTS
        for side in ("chosen", "rejected")
    ]
    assert found.columns["logps"].tolist() == pytest.approx(honest.logps(policy, answers), abs=1e-3)
    with policy.disable_adapter():
        assert found.columns["ref_logps"].tolist() == pytest.approx(honest.logps(policy, answers), abs=1e-3)
    assert found.preferred.tolist() == [1] * 5
    assert found.pairs.tolist() == [[2 * place, 2 * place + 1] for place in range(5)]


def test_completions_form_all_pairs_of_a_prompt(policy: PeftModel) -> None:
    texts = {"a": ["x", "y", "x", " "], "b": ["x"], "c": ["u", "v"]}
    given = [{"prompt": prompt, "completion": text} for prompt, several in texts.items() for text in several]
    lists = [{"prompt": prompt, "responses": several} for prompt, several in texts.items()]
    for rows_, what in ((given, "rows"), (pandas.DataFrame(given), "a table"), (lists, "lists")):
        found = featurize(policy, byte_tokenizer(), rows_, method="random")
        assert found.pairs.tolist() == [[0, 1], [5, 6]], what
        assert found.prompt_index.tolist() == [0, 0, 0, 0, 1, 2, 2]
        assert found.times_sampled.tolist() == [2, 1, 1, 1, 1, 1, 1]
        assert len(found) == 7
    assert choose(found, budget=2, method="random", max_per_prompt=1).pairs.tolist() != []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "there are no rows"),
        ({"prompt": "a"}, "an iterable of mappings, not dict"),
        ([{"prompt": "a", "completion": "b"}, TEXTS[0]], "row 0 is no pair of responses, and row 1 is otherwise"),
        ([TEXTS[0], {"prompt": "a", "chosen": "b", "rejected": "b"}], "1 of 2 rows offer no choice.*: 1"),
        ([{"prompt": "a", "completion": "b" * 5000}], "exceed the model's context"),
        ([{"prompt": "a"}], "row 0 has no responses"),
    ],
)
def test_rows_that_are_refused(policy: PeftModel, given: Any, said: str) -> None:
    with pytest.raises(ActiveDPOError, match=said):
        featurize(policy, byte_tokenizer(), given)


def test_what_is_no_policy_is_told_so(policy: PeftModel) -> None:
    with pytest.raises(UsageError, match="has none") as refusal:
        featurize(policy.base_model.model, byte_tokenizer(), TEXTS)
    assert any("get_peft_model" in note for note in refusal.value.__notes__)
    with pytest.raises(UsageError, match="did you mean `logps`"):
        featurize(policy, byte_tokenizer(), TEXTS, columns=["logp"])
    with pytest.raises(UsageError, match="not a projection"):
        featurize(policy, byte_tokenizer(), TEXTS, projection="sparse")


@pytest.mark.filterwarnings("error")
def test_a_response_that_is_not_finite_is_part_of_no_pair(policy: PeftModel) -> None:
    """Of few such it is said which they are; more than one in a hundred mean that the policy is of no use."""
    tokenizer = byte_tokenizer()
    given = [{"prompt": "Count", "responses": [f"{n} and", f"{n} or"]} for n in range(60)]
    given[7]["responses"][1] = "7 or ~"
    weights = policy.get_input_embeddings().weight.data
    row = tokenizer("~")["input_ids"][-1]
    before = weights[row].clone()
    weights[row] = torch.nan
    try:
        with pytest.raises(InvalidDataError, match="1 of 20 responses are not finite"):
            featurize(policy, tokenizer, given[:10], method="small-margin")
        with pytest.warns(UserWarning, match="part of no pair: responses 15$"):
            found = featurize(policy, tokenizer, given, method="small-margin")
    finally:
        weights[row] = before
    assert found.excluded == (15,)
    assert found.columns["logps"][15] == 0
    chosen = choose(
        found, found.pairs[(found.pairs == 15).any(dim=1) | (found.pairs == 0).any(dim=1)], budget=118, method="random"
    )
    assert 15 not in chosen.pairs


def known(**changes: Any) -> Features:
    generator = torch.Generator().manual_seed(3)
    given = {"columns": {"features": torch.randn(8, 4, generator=generator)}, "pairs": [(0, 1), (2, 3), (4, 5), (6, 7)]}
    return Features(**given | changes)


@pytest.mark.parametrize("method", sorted(discovery.available("acquisition")))
def test_every_method_chooses_or_names_what_it_lacks(method: str) -> None:
    needs = set(discovery.declared_needs("acquisition", method)) - {"features"}
    if needs:
        with pytest.raises(UsageError, match=f"`{method}` needs .*{sorted(needs)[0]}") as refusal:
            choose(known(), budget=2, method=method)
        assert any(note.startswith("hint: ") for note in refusal.value.__notes__)
    generator = torch.Generator().manual_seed(4)
    columns = {name: torch.randn(8, generator=generator) for name in needs & {"logps", "ref_logps", "scores"}}
    columns |= {name: torch.randn(8, 3, generator=generator) for name in needs & {"hidden", "mean_hidden"}}
    full = known(texts=tuple(f"word{n} and {n % 3}" for n in range(8)), prompt_index=[0, 0, 1, 1, 2, 2, 3, 3])
    full = full.with_columns(**columns)
    labelled = full.with_pairs([(0, 1), (2, 3)], [1, -1])
    chosen = choose(full, [(4, 5), (6, 7)], budget=2, method=method, labelled=labelled)
    assert sorted(chosen.indices.tolist()) == [0, 1]
    assert sorted(chosen.pairs.tolist()) == [[4, 5], [6, 7]]
    assert chosen.method == method


def test_the_same_call_chooses_the_same_and_a_generator_decides() -> None:
    first, again = (choose(known(), budget=2, method="random").indices.tolist() for _ in range(2))
    assert first == again
    seeds = {
        tuple(choose(known(), budget=2, method="random", generator=torch.Generator().manual_seed(s)).indices.tolist())
        for s in range(9)
    }
    assert len(seeds) > 3


def test_an_excluded_response_is_part_of_no_choice_and_no_history() -> None:
    left = known(excluded=(2,))
    assert sorted(choose(left, budget=3, method="random").indices.tolist()) == [0, 2, 3]
    with pytest.raises(InvalidDataError, match="budget is 4 pairs, and 3 can be chosen"):
        choose(left, budget=4)
    both = known().with_pairs([(2, 3), (4, 5)], [1, 1])
    without = known(excluded=(2,)).with_pairs([(2, 3), (4, 5)], [1, 1])
    alone = known().with_pairs([(4, 5)], [1])
    scores = [
        choose(known(), [(0, 1)], budget=1, labelled=labelled).scores.item() for labelled in (both, without, alone)
    ]
    assert scores[1] == scores[2] != scores[0]


def labelled(**changes: Any) -> Features:
    return known(preferred=[1, 1, -1, 0], **changes)


def not_finite(row: int) -> torch.Tensor:
    features = known().columns["features"].clone()
    features[row, 1] = torch.nan
    return features


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": [(0, 8)]}, r"pair 0 is \(0, 8\).* of 8 responses"),
        ({"pairs": [(0, 1), (1, 1)]}, r"pair 1 is \(1, 1\)"),
        ({"pairs": [(0, 1, 2)]}, r"shape \[1, 3\]"),
        ({"pairs": torch.rand(2, 2)}, "whole numbers"),
        ({"columns": {"feature": torch.ones(8, 1)}}, "no column.*did you mean `features`"),
        ({"columns": {"features": torch.ones(8, 1), "logps": torch.ones(7)}}, "differ in length"),
        ({"columns": {"logps": torch.ones(8, 1)}}, "`logps` has one number for each response"),
        ({"columns": {"features": torch.ones(8)}}, "`features` has a row of numbers"),
        ({"preferred": [1, 1]}, r"shape \[2\], and there are 4 pairs"),
        ({"preferred": [1, 1, 2, 1]}, "1, −1 or 0"),
        ({"prompt_index": [0, 1, 2, 2, 3, 3, 4, 4]}, "different prompts"),
    ],
)
def test_features_that_do_not_fit(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        known(**changes)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"budget": 5}, "budget is 5 pairs, and 4 can be chosen"),
        ({"budget": 0}, "budget is 0 pairs"),
        ({"budget": 1, "method": "activdpo"}, "did you mean `activedpo`"),
        ({"budget": 1, "max_per_prompt": 1}, "needs to know the prompts"),
        ({"budget": 1, "normalise": "unit"}, "response, pair or none"),
        ({"budget": 1, "settings": {"rigde": 1}}, "settings of method `activedpo` are wrong"),
        ({"budget": 1, "settings": {"ridge": 0}}, "λ must be a positive number"),
        ({"budget": 1, "labelled": known()}, "nobody says which response was preferred"),
        ({"budget": 1, "labelled": labelled(columns={"features": torch.ones(8, 5)})}, "4 numbers, and .* pairs 5"),
        ({"budget": 1, "labelled": labelled(made_with={"seed": 1})}, "different projections do not compare"),
        ({"budget": 1, "features": not_finite(3)}, "row 3 of `features` is not finite"),
    ],
)
def test_choices_that_are_refused(options: dict[str, Any], said: str) -> None:
    features = options.pop("features", None)
    table = known(made_with={"seed": 0}) if features is None else known(columns={"features": features})
    with pytest.raises(ActiveDPOError, match=said):
        choose(table, **options)


def test_a_run_is_read_as_tables(finished_original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_run(finished_original)
    assert run.iterations == (1, 2)
    assert run.settings["select.budget"] == 4
    stored = [row for t in (1, 2) for row in rows(finished_original / f"iter-00{t}/label/preferences.jsonl")]
    bought = run.preferences()
    assert [{k: v for k, v in row.items() if k != "iteration"} for row in bought] == stored
    assert bought.to_dataset().column_names[:2] == ["iteration", "pair_id"]
    assert {"prompt", "chosen", "rejected"} < set(bought.to_dataset().column_names)
    assert len(run.responses(1)) == manifest(finished_original, 1, "generate")["summary"]["responses"]
    assert run.responses().to_dataset().num_rows == len(run.responses(1)) + len(run.responses(2))
    measured = run.evaluations()
    assert [row["iteration"] for row in measured] == [0, 1, 2]
    later = set(metrics_of(finished_original, 2)) - set(metrics_of(finished_original, 0))
    assert later
    assert later < set(measured.to_dataset().column_names), (
        "what the first row lacks is no column of datasets by itself"
    )
    assert measured.to_pandas()["reward_mean"].notna().all()
    monkeypatch.setenv("ACTIVEDPO_RUN", str(finished_original))
    assert read_run().path == finished_original


def metrics_of(run: Path, iteration: int) -> dict[str, Any]:
    folder = run / "reference/evaluate" if iteration == 0 else run / f"iter-00{iteration}/evaluate"
    return json.loads((folder / "metrics.json").read_bytes())


def test_what_is_not_there_is_named_with_the_command(finished: Path, tmp_path: Path, new_run: Path) -> None:
    with pytest.raises(NotReadyError, match="there is no run"):
        read_run(tmp_path / "none")
    with pytest.raises(NotReadyError, match="no iteration of .* is labelled") as refusal:
        read_run(new_run).preferences()
    assert any("activedpo label" in note for note in refusal.value.__notes__)
    for read in (
        read_run(new_run).evaluations,
        read_run(new_run).adapter,
        read_run(new_run).responses,
        read_run(new_run).choices,
    ):
        with pytest.raises(NotReadyError):
            read()
    run = read_run(finished)
    (finished / "iter-001/label/preferences.jsonl").write_text("")
    with pytest.raises(InvalidDataError, match="does not hold what was made there"):
        run.preferences(1)
    done(*on(finished, "generate", iteration=2), "--force", "--set", "generate.num_responses=2", "--quiet")
    with pytest.raises(NotReadyError, match="stale|made from"):
        run.choices(2)


def test_a_prompt_beside_messages_is_a_message() -> None:
    from activedpo_cli.run.records import alike

    found = alike([{"prompt": "a", "x": 1}, {"prompt": [{"role": "user", "content": "b"}], "y": 2}])
    assert found == [
        {"prompt": [{"role": "user", "content": "a"}], "x": 1, "y": None},
        {"prompt": [{"role": "user", "content": "b"}], "x": None, "y": 2},
    ]


def test_settings_are_those_of_the_file(new_run: Path) -> None:
    sections = [name for name in Config.model_fields if name != "seed"]
    assert set(read_run(new_run).settings) == {"seed", *flat(Config(), *sections)}
