"""`doctor --model` asks what *generate* asks, shows the answers, and leaves the model as it was."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import transformers
from command_line import activedpo, done, on, refused, snapshot
from model_families import HEADS, SHARED, SIZES, family_model, save_family
from small_models import CHAT_TEMPLATE, byte_tokenizer, save_small_model
from small_runs import small_run
from torch import Tensor
from torch.nn.functional import linear
from transformers import PretrainedConfig
from transformers.models.llama.modeling_llama import LlamaMLP

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError
from activedpo_cli.base.settings import Config
from activedpo_cli.models.padded_sampling import _difference
from activedpo_cli.policy import early_check
from activedpo_cli.policy.early_check import Subject, a_batch_changes_nothing, every_token_has_a_row
from activedpo_cli.policy.policy import BaseWeights
from activedpo_cli.train import trainer_setup

LINEAR = ("--set", "adapter.target_modules=all-linear")
METHOD = ("--set", "select.method=random")
IDS = {name: SHARED[name] for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")}
SMALL = ("--set", "adapter.r=2", "--set", "adapter.lora_alpha=8")


@pytest.fixture(autouse=True)
def _needs_are_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stages need is looked at in `test_needs.py`; to imagine passes takes up to ten seconds for some architectures."""
    monkeypatch.setattr("activedpo_cli.health.needs.estimate", Mock(side_effect=ActiveDPOError("not asked here")))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = save_family(tmp_path_factory.mktemp("family") / family, family)
        return made[family]

    return of


def checks(model: Path, *words: object, code: int = 0) -> dict[str, dict[str, Any]]:
    before = snapshot(model)
    result = activedpo("doctor", "--model", model, *SMALL, *words, "--json")
    assert result.exit_code == code, result.output
    found = json.loads(result.stdout)
    assert found["usable"] == (code == 0)
    assert snapshot(model) == before
    return {check["name"]: check for check in found["checks"]}


@pytest.mark.parametrize(
    ("family", "modules", "slow"),
    [("llama", "all-linear", 0), ("mixtral", "all-linear", 12), ("gpt2", "c_attn", 0), ("opt", "all-linear", 0)],
)
def test_a_model_that_can_be_used(folder_of: Callable[[str], Path], family: str, modules: str, slow: int) -> None:
    found = checks(folder_of(family), "--set", f"adapter.target_modules={modules}")
    assert {check["state"] for check in found.values()} == {"ok"}
    assert "float32" in found["the model loads"]["says"]
    assert found["every token has a row"]["says"] == "260 tokens, 260 rows of embeddings"
    assert "first loss 0.6931 (ln 2 is 0.6931), reward 0" in found["training begins at the reference"]["says"]
    runs = found["the model runs with the adapter"]["says"]
    assert ("12 matrices take a pass for each response" in runs) == bool(slow)


def test_the_table_shows_what_is_refused_and_the_way_out(folder_of: Callable[[str], Path]) -> None:
    words = ("doctor", "--model", folder_of("phimoe"), *SMALL, "--set", "adapter.target_modules=all-linear")
    result = activedpo(*words)
    assert result.exit_code == 3
    way_out = "--set adapter.target_modules=k_proj,o_proj,q_proj,v_proj"
    assert "\u2717 the model runs with the adapter" in result.stdout
    assert "model.layers.0.mlp.router" in result.stdout
    assert way_out in result.stdout
    assert "not asked" in result.stdout
    assert way_out in result.stderr
    done(*words[:-1], way_out.split()[1])


def test_a_share_of_wrong_answers_that_is_still_to_be_estimated(folder_of: Callable[[str], Path]) -> None:
    words = ("--set", "train.loss_type=cdpo", "--set", "train.label_smoothing=overlap")
    assert checks(folder_of("llama"), *words)["training begins at the reference"]["state"] == "ok"


def test_layers_that_are_not_there(folder_of: Callable[[str], Path]) -> None:
    found = checks(folder_of("gpt2"), code=3)
    assert found["the adapter can be put on"]["state"] == "refused"
    assert "c_attn, c_fc, c_proj" in found["the adapter can be put on"]["says"]


def test_a_kernel_without_a_backward_pass_is_refused_here_and_before_generating(
    folder_of: Callable[[str], Path], tmp_path: Path, prompts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities are right, so that nothing else would notice."""

    def forward(self: LlamaMLP, states: Tensor) -> Tensor:
        inner = self.act_fn(self.gate_proj(states)) * self.up_proj(states)
        return linear(inner.detach(), self.down_proj.weight)

    folder = folder_of("llama")
    run = small_run(tmp_path / "run", folder, prompts_file)
    monkeypatch.setattr(LlamaMLP, "forward", forward)
    found = checks(folder, code=3)
    name = "gradients are the derivatives of log-probabilities"
    assert found[name]["state"] == "refused"
    said = refused(4, *on(run, "generate"), "--quiet")
    assert "not the derivatives of its log-probabilities" in said
    assert "another --device" in said
    assert not list(run.rglob("responses-*"))


def test_noise_that_remains_in_training_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = family_model("mixtral")
    model.config.router_jitter_noise = 0.3
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    assert checks(tmp_path / "model")["training begins at the reference"]["says"].endswith("reward 0")
    monkeypatch.setattr(trainer_setup, "base_in_evaluation_mode", lambda model: None)
    found = checks(tmp_path / "model", code=3)
    assert "a policy that is its reference has a reward" in found["training begins at the reference"]["says"]


def test_a_tokenizer_of_another_model() -> None:
    """Tokens of ordinary text must be there; special ones may be unused."""
    model = family_model("llama")
    subject = Subject(BaseWeights(model, byte_tokenizer(), torch.device("cpu")), Config())
    model.resize_token_embeddings(258)
    assert every_token_has_a_row(subject) == "258 rows of embeddings; 2 special tokens have none, first `<pad>`"
    model.resize_token_embeddings(250)
    with pytest.raises(InvalidDataError, match="makes 6 tokens that the model does not have"):
        every_token_has_a_row(subject)


def test_what_nobody_foresaw_is_shown_as_refused(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(subject: Subject) -> str:
        raise IndexError("index out of range in self")

    monkeypatch.setitem(early_check.CHECKS, "every token has a row", broken)
    found = checks(folder_of("llama"), code=3)
    assert found["every token has a row"]["says"] == "IndexError: index out of range in self"


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    said = refused(4, "doctor", "--model", tmp_path / "none")
    assert "there is no model folder" in said


@pytest.mark.parametrize(
    ("template", "name", "state", "says"),
    [
        (None, "chat template", "ok", "none is used"),
        (CHAT_TEMPLATE, "chat template: opens answers", "ok", ""),
        (CHAT_TEMPLATE.replace("<eos>", "."), "chat template: turns end", "warning", "at which no sampling stops"),
        ("Answer: {{ raise_exception('no') }}", "chat template", "refused", "refuses a prompt"),
        (
            "{% if messages[-1]['role'] == 'assistant' %}Done {% endif %}{{ messages[-1]['content'] }}",
            "chat template: opens answers",
            "refused",
            "writes a prompt otherwise once an answer stands behind it",
        ),
    ],
)
def test_a_chat_template_is_shown_too(tmp_path: Path, template: str | None, name: str, state: str, says: str) -> None:
    tokenizer = byte_tokenizer("bytes-chat")
    tokenizer.chat_template = template
    model = save_small_model(tmp_path / "model", tokenizer=tokenizer)
    found = checks(model, code=3 if state == "refused" else 0)
    assert found[name]["state"] == state
    assert says in found[name]["says"]


SLIGHT = HEADS | {"initializer_range": 0.01, "num_local_experts": 4, "num_experts_per_tok": 2}


def _scaled_positions(length: int) -> PretrainedConfig:
    """Positions as of Phi-3 with 128k tokens, which are scaled otherwise as soon as a text is longer than `length`."""
    scaled = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4}
    limit = {"original_max_position_embeddings": length}
    return transformers.Phi3Config(**SIZES, **limit, rope_parameters=scaled | limit)


UNSOUND: dict[str, tuple[Callable[[], PretrainedConfig], str, str]] = {
    "not causal": (
        lambda: transformers.BertConfig(**SHARED, intermediate_size=48, initializer_range=0.2),
        "no token sees later ones",
        "its predictions change with the tokens that follow",
    ),
    "predicts no numbers": (  # RMSNorm takes the root of a negative number
        lambda: transformers.LlamaConfig(**HEADS, rms_norm_eps=-10.0),
        "no token sees later ones",
        "the model's predictions are no numbers",
    ),
    "blind to padding": (
        lambda: transformers.RwkvConfig(vocab_size=260, hidden_size=32, num_hidden_layers=2, context_length=64),
        "a batch changes nothing",
        "the model samples otherwise in a batch of prompts of several lengths",
    ),
    "shifted a little by padding": (
        lambda: transformers.MiniMaxConfig(**SLIGHT, layer_types=["linear_attention", "full_attention"]),
        "a batch changes nothing",
        "the model samples otherwise in a batch of prompts of several lengths",
    ),
    "its states have another shape": (
        lambda: transformers.xLSTMConfig(**IDS, hidden_size=32, num_hidden_layers=2, num_heads=4),
        "a batch changes nothing",
        "the model samples otherwise with its cache",
    ),
    "without a limit, and not causal": (
        lambda: transformers.XLNetConfig(**IDS, d_model=32, n_layer=2, n_head=4, d_inner=48, initializer_range=0.2),
        "no token sees later ones",
        "its predictions change with the tokens that follow",
    ),
    "keeps fewer tokens than a text has": (
        lambda: transformers.DogeConfig(**HEADS, keep_window_size=18),
        "a batch changes nothing",
        "the model samples otherwise with its cache",
    ),
    "scales positions past a length": (
        lambda: _scaled_positions(18),
        "a batch changes nothing",
        "the model samples otherwise with its cache",
    ),
    "its layers have another name": (
        lambda: transformers.Llama4TextConfig(**HEADS, intermediate_size_mlp=48, num_local_experts=2),
        "training finds the backbone",
        "TRL can't train a `Llama4ForCausalLM`",
    ),
}


BEYOND = {
    "keeps fewer tokens than a text has": "`keep_window_size`, 18 tokens",
    "scales positions past a length": "`original_max_position_embeddings`, 18 tokens",
}
FAMILIES = {"without a limit, and not causal": "XLNetLMHeadModel", "its states have another shape": "xLSTMForCausalLM"}


@pytest.mark.parametrize("kind", UNSOUND)
def test_an_architecture_that_makes_wrong_numbers(kind: str, tmp_path: Path, prompts_file: Path) -> None:
    config, name, says = UNSOUND[kind]
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config()).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    eager = ("--set", "model.attn_implementation=eager")
    found = checks(tmp_path / "model", "--set", "adapter.target_modules=all-linear", *eager, code=3)
    assert found[name]["state"] == "refused"
    assert says in found[name]["says"]
    run = small_run(tmp_path / "run", tmp_path / "model", prompts_file, model__attn_implementation="eager")
    said = " ".join(refused(4, *on(run, "generate"), "--quiet", *METHOD).split())
    assert says.split(" of ")[0] in said
    assert BEYOND.get(kind, "") in said
    assert f"`{FAMILIES[kind]}` of transformers" in said if kind in FAMILIES else True
    assert not list(run.rglob("responses-*"))
    if says.endswith("of several lengths"):
        done(*on(run, "generate"), "--quiet", *METHOD, *LINEAR, "--set", "generate.unit_size=1", "--num-prompts", 2)


@pytest.mark.parametrize("kind", BEYOND)
def test_texts_within_the_length_that_a_model_keeps_to_are_sampled(
    kind: str, tmp_path: Path, prompts_file: Path
) -> None:
    """Nothing is refused for what the prompts and answers of a run do not reach."""
    config = transformers.DogeConfig(**HEADS, keep_window_size=200) if "keeps" in kind else _scaled_positions(200)
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    run = small_run(tmp_path / "run", tmp_path / "model", prompts_file)
    done(*on(run, "generate"), "--quiet", *METHOD, *LINEAR)


def test_numbers_that_only_padding_takes_away() -> None:
    """Rows without padding have the right logits, and so has every text that is read alone."""
    model = family_model("llama")
    subject = Subject(BaseWeights(model, byte_tokenizer(), torch.device("cpu")), Config())
    assert a_batch_changes_nothing(subject).endswith("deviations")

    def forward(*words: Any, attention_mask: Tensor | None = None, **given: Any) -> Any:
        made = type(model).forward(model, *words, attention_mask=attention_mask, **given)
        if attention_mask is not None:
            made.logits[attention_mask[:, 0] == 0] = torch.nan
        return made

    forward.__signature__ = inspect.signature(model.forward)  # type: ignore[attr-defined]
    model.forward = forward
    with pytest.raises(InvalidDataError, match="in a batch of prompts of several lengths") as refusal:
        a_batch_changes_nothing(subject)
    assert "its logits are infinite or not a number (NaN)" in refusal.value.details


def test_tokens_that_are_never_sampled_change_nothing() -> None:
    """Some models give padding of their vocabulary the logit of minus infinity, in a batch as well as alone."""
    logits = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    logits[:, -2:] = -torch.inf
    assert _difference(logits, logits.clone()) == 0
    other = logits.clone()
    other[0, -1] = 0
    assert _difference(logits, other) == torch.inf


def test_a_mixture_that_was_saved_with_its_auxiliary_loss_samples(tmp_path: Path, prompts_file: Path) -> None:
    model = family_model("mixtral")
    model.config.output_router_logits = True
    model.save_pretrained(tmp_path / "model")
    byte_tokenizer().save_pretrained(tmp_path / "model")
    done(*on(small_run(tmp_path / "run", tmp_path / "model", prompts_file), "generate"), "--quiet", *METHOD)


def test_an_added_token_without_a_row_that_ordinary_text_makes() -> None:
    model, tokenizer = family_model("llama"), byte_tokenizer()
    tokenizer.add_tokens(["sea"])
    with pytest.raises(InvalidDataError, match="makes 1 tokens that the model does not have"):
        every_token_has_a_row(Subject(BaseWeights(model, tokenizer, torch.device("cpu")), Config()))
