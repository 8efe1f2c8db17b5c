"""A base in 4 or 8 bits: everything is what the values of its codes give, held against these written out in float32."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import STAGES, done, on, refused
from safetensors.torch import load_file, save_file
from small_models import byte_tokenizer, save_small_model
from small_policies import ADAPTER, disturb, load
from small_runs import small_run
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.settings import TrainSettings
from activedpo_cli.gradients.batch import pad_responses
from activedpo_cli.gradients.per_response import response_gradients
from activedpo_cli.gradients.projections import make_projection
from activedpo_cli.models.adapters import with_fresh_adapter
from activedpo_cli.models.quantization import keep_exact
from activedpo_cli.store.run import Run
from activedpo_cli.train.dpo_trainer import DPOExample, train_dpo

BITS = ("4bit", "8bit")
ROWS = [([5, 6, 7], [8, 9, 10, 11]), ([20, 21], [30, 31, 32]), ([1], [2, 3, 4, 5, 6])]
SIZES = {"hidden_size": 64, "intermediate_size": 128, "head_dim": 32}
"""Of which every weight has blocks of 64 codes with a scale of their own."""


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_model(tmp_path_factory.mktemp("wide"), **SIZES)


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")


def written_out(model: PreTrainedModel, folder: Path, library: Any) -> PreTrainedModel:
    """The model of a folder with the values of a quantised one's codes for its weights, by the library's own reading."""
    full, layers = load(folder), dict(model.named_modules())
    for name, module in full.named_modules():
        weight: Any = getattr(layers[name], "weight", None)
        if isinstance(layers[name], library.nn.Linear4bit):
            module.weight.data = library.functional.dequantize_4bit(weight.data, weight.quant_state).float()
        elif isinstance(layers[name], library.nn.Linear8bitLt):
            module.weight.data = weight.data.float() * weight.SCB[:, None] / 127
    return full


def honest_logp_and_norm(policy: Any, prompt: list[int], answer: list[int]) -> tuple[float, float]:
    """Log π of one response, and the norm of its gradient by autograd."""
    adapter = [weights for name, weights in policy.named_parameters() if "lora_" in name]
    logps = policy(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    logp = logps.gather(1, torch.tensor(answer)[:, None]).sum()
    gradients = torch.autograd.grad(logp, adapter)
    return logp.item(), torch.cat([gradient.flatten() for gradient in gradients]).norm().item()


class PackingLinear(torch.nn.Linear):
    """Evaluated as bitsandbytes evaluates 4-bit layers on a CPU that it has a kernel for: with no gradient to the input."""

    support_avx512bf16_for_cpu = True

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        packs = self.support_avx512bf16_for_cpu and not self.training and not states.requires_grad
        self.packed = getattr(self, "packed", False) or packs
        return torch.nn.functional.linear(states.detach() if self.packed else states, self.weight)


def test_layers_that_lose_their_backward_pass_in_evaluation_keep_it() -> None:
    layer = PackingLinear(3, 2).eval()
    states = torch.ones(1, 3)
    keep_exact(torch.nn.Sequential(layer))
    layer(states)
    states.requires_grad_(True)
    layer(states).sum().backward()
    assert states.grad is not None
    assert torch.equal(states.grad[0], layer.weight.sum(0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bits", BITS)
def test_features_are_gradients_of_the_values(bits: str, dtype: str, wide_model: Path, library: Any) -> None:
    """Also after the layers were evaluated without gradients, which is when 4-bit ones pack their weights on some CPUs."""
    model = load(wide_model, dtype=dtype, quantization=bits)
    honest = disturb(with_fresh_adapter(written_out(model, wide_model, library), ADAPTER, seed=0)).eval()
    policy = disturb(with_fresh_adapter(model, ADAPTER, seed=0)).eval()
    with torch.no_grad():
        policy(input_ids=torch.arange(8)[None])
    batch = pad_responses([prompt for prompt, _ in ROWS], [answer for _, answer in ROWS], 0, "cpu")
    found = response_gradients(policy, batch, make_projection("factored", 96, 1), exact_norms="always")
    assert found.exact_norms is not None
    assert {weights.dtype for name, weights in policy.named_parameters() if "lora_" in name} == {torch.float32}
    tolerance = 1e-4 if dtype == "float32" else 0.2  # bfloat16 alone moves the norms of this model by 0.15
    for row, (prompt, answer) in enumerate(ROWS):
        logps, norm = honest_logp_and_norm(honest, prompt, answer)
        assert found.exact_norms[row].item() == pytest.approx(norm, rel=tolerance)
        assert found.logps[row].item() == pytest.approx(logps, rel=tolerance)


def test_eight_bits_do_not_see_later_tokens_or_other_texts(wide_model: Path, library: Any) -> None:
    """LLM.int8's own product does: which columns it rounds depends on all that is in the batch."""
    model = load(wide_model, quantization="8bit")
    text = torch.arange(10, 20)
    with torch.no_grad():
        alone = model(text[None]).logits[0, :5]
        changed = model(torch.stack([torch.cat([text[:5], text[:5] + 40]), text + 90])).logits[0, :5]
    assert (alone - changed).abs().max() < 1e-4 * alone.std()


@pytest.mark.parametrize("bits", BITS)
def test_training_keeps_the_adapter_in_float32(bits: str, wide_model: Path, library: Any, tmp_path: Path) -> None:
    """TRL would narrow it to bfloat16; held against the training of the values written out."""
    model = load(wide_model, quantization=bits)
    examples = [
        DPOExample(pair_id=str(place), prompt_ids=prompt, chosen_ids=answer, rejected_ids=answer[::-1])
        for place, (prompt, answer) in enumerate(ROWS)
    ]
    settings = TrainSettings(num_train_epochs=2, per_device_train_batch_size=2)
    trained = []
    for base in (written_out(model, wide_model, library), model):
        policy = disturb(with_fresh_adapter(base, ADAPTER, seed=0))
        kept = copy.deepcopy({n: w.detach() for n, w in policy.named_parameters() if "lora_" in n})
        train_dpo(
            policy,
            byte_tokenizer(),
            examples,
            settings,
            seed=1,
            device=torch.device("cpu"),
            on_log=lambda row: None,
            scratch=tmp_path,
        )
        trained.append({name: w.detach() - kept[name] for name, w in policy.named_parameters() if name in kept})
    for name, change in trained[0].items():
        assert trained[1][name].dtype == torch.float32
        torch.testing.assert_close(trained[1][name], change, rtol=0.02, atol=2e-6)


def test_an_iteration_with_four_bits_is_recorded_throughout(
    wide_model: Path, prompts_file: Path, library: Any, tmp_path: Path
) -> None:
    run = small_run(tmp_path / "run", wide_model, prompts_file, model__quantization="4bit")
    for stage in STAGES:
        done(*on(run, stage), "--quiet")
    opened = Run.open(run)
    records = [opened.stage(stage, 1).manifest for stage in ("generate", "featurize", "train", "evaluate")]
    for record in [*records, opened.initial_evaluation.manifest]:
        assert record is not None
        assert record.settings["model.quantization"] == "4bit"
        assert record.environment["bitsandbytes"] == library.__version__
    assert "model.quantization" in refused(3, *on(run, "generate"), "--quantization", "none", "--quiet")
    assert "up to date" in done(*on(run, "featurize")).output


@pytest.mark.parametrize("bits", BITS)
def test_values_that_are_not_finite_do_not_hide_behind_codes(bits: str, library: Any, tmp_path: Path) -> None:
    folder, name = save_small_model(tmp_path, **SIZES), "model.layers.1.mlp.up_proj.weight"
    weights = load_file(folder / "model.safetensors")
    weights[name].view(-1)[7] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidDataError, match=name):
        load(folder, quantization=bits)


def test_weights_that_are_quantised_already(wide_model: Path, library: Any, tmp_path: Path) -> None:
    """They are read as they are, with gradients of their values, and are not quantised again."""
    wanted = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    AutoModelForCausalLM.from_pretrained(wide_model, quantization_config=wanted).save_pretrained(tmp_path)
    model = load(tmp_path)
    found = []
    for one in (written_out(model, wide_model, library), model):
        states = one.get_input_embeddings()(torch.arange(8)[None]).detach()
        one(inputs_embeds=states)
        states.requires_grad_(True)
        one(inputs_embeds=states).logits.log_softmax(-1)[..., 0].sum().backward()
        found.append(states.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-5)
    with pytest.raises(UsageError, match="quantised already"):
        load(tmp_path, quantization="4bit")


def test_without_the_library_the_extra_is_named(
    model_folder: Any, prompts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(tmp_path / "run", model_folder(), prompts_file, model__quantization="8bit")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    said = refused(1, *on(run, "generate"), "--quiet")
    assert "bitsandbytes" in said
    assert "pip install 'activedpo-cli[quant]'" in said


def test_a_server_would_sample_from_other_weights(model_folder: Any, prompts_file: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", model_folder(), prompts_file, model__quantization="4bit")
    server = ("--backend", "server", "--server-url", "http://127.0.0.1:9/v1")
    assert "other weights" in refused(2, *on(run, "generate"), *server, "--quiet")
