"""What one large GPU does: features, select, bfloat16 against float32, a whole iteration, and a quantised base.

    sh tests/benchmarks/gpu.sh --output gpu.json           # about 70 GiB of GPU memory, under 8 minutes, no network
    sh tests/benchmarks/gpu.sh --small --device cpu        # thin shapes, on any machine

Random weights. Each part is written to the file as soon as it is measured, so that a limit on time loses only what is left.
A part that fails, for want of a package too, stands there with its reason. `--only` names parts.
"""

import argparse
import gc
import importlib.util
import io
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import architectures
import torch

from activedpo_cli.bench.measuring import peak_memory, seconds
from activedpo_cli.models.loading import pick_device
from activedpo_cli.models.random_models import random_config

HERE = Path(__file__).resolve().parent
MINUTES = 7.5
BASE = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
}
"""The shape of TinyLlama 1.1B, for an iteration; it speaks the tokens of the built-in model."""
THIN = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
STAGES = ("generate", "featurize", "select", "label", "train", "evaluate")
MEASURED = ("generate", "featurize", "train", "evaluate")
"""The stages of which memory was foretold."""

Part = Callable[[argparse.Namespace, torch.device], Any]


def main(words: list[str] | None = None) -> dict[str, Any]:
    """Measure one part after another, and print what was found."""
    options = parse_options(words)
    device = pick_device(options.device)
    began, found = time.monotonic(), dict[str, Any]()
    for name, part in PARTS.items():
        if options.only and name not in options.only:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        if time.monotonic() - began > 60 * options.minutes:
            found[name] = {"skipped": "no time was left"}
            continue
        start = time.monotonic()
        try:
            found[name] = part(options, device)
        except Exception as error:
            traceback.print_exc()
            found[name] = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
        found.setdefault("seconds of parts", {})[name] = round(time.monotonic() - start, 1)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if options.output:
            options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return found


def parse_options(words: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="thin shapes, to try the script itself")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which no further part begins")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), metavar="PART")
    parser.add_argument("--output", type=Path)
    return parser.parse_args(words)


def of_device(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """What it is, and what it reaches on matrices of no model."""
    from activedpo_cli.health.needs import measured_speed

    speed = measured_speed(device, torch.bfloat16)
    return {
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "peak_tflops": architectures.measured_peak_tflops(device, 256 if options.small else 8192),
        "gigabytes_a_second": speed.bytes / 1e9,
    }


def of_features(options: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Three architectures with 512 tokens a response, against the plain pass, and the memory that was foretold."""
    from activedpo_cli.bench.imagined import Adapter, ImaginedModel, Tokens

    words = ["--device", str(device), *(["--small"] if options.small else ["--repeats", "3"])]
    plan = architectures.parse_options(words)
    peak = architectures.measured_peak_tflops(device, 256 if options.small else 8192)
    rows = []
    for name in plan.models:
        row = architectures.measured_row(name, plan, device, peak)
        config = random_config(name, **architectures.SMALL if options.small else {})
        imagined = ImaginedModel(config, architectures.DTYPES[plan.dtype], Adapter(plan.lora_r, "all-linear"))
        length = plan.prompt_tokens + plan.response_tokens
        tokens = Tokens(max(1, plan.tokens_per_batch // length), plan.prompt_tokens, plan.response_tokens)
        foretold = imagined.features(tokens, plan.proj_dim, plan.projection, checkpointing=False)
        rows.append(row | {"foretold_gib": foretold / 2**30})
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def of_number_formats(options: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """The angle between features of one policy with its base in float32 and in bfloat16, and between their differences."""
    from activedpo_cli.bench.workload import Workload
    from activedpo_cli.gradients.per_response import response_gradients
    from activedpo_cli.gradients.projections import make_projection

    plan = architectures.parse_options(["--dtype", "float32", *(["--small"] if options.small else [])])
    policy = architectures.random_architecture(plan.models[0], plan, device)
    vocabulary = policy.get_input_embeddings().weight.shape[0]
    workload = Workload(8, plan.prompt_tokens, plan.response_tokens, 10**6, seed=0)
    (batch,) = workload.batches(vocabulary, device)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for name, weight in policy.named_parameters():
            if "lora_" not in name:
                weight.data = weight.data.to(dtype)
        projection = make_projection(plan.projection, plan.proj_dim, 0)
        found.append(torch.cat([response_gradients(policy, one, projection).features for one in batch.each()]).double())
    cosines = torch.cosine_similarity(*found, dim=1)
    pairs = torch.cosine_similarity(*(each[1:] - each[:-1] for each in found), dim=1)
    return {
        "mean_cosine": cosines.mean().item(),
        "least_cosine": cosines.min().item(),
        "mean_cosine_of_differences": pairs.mean().item(),
        "least_cosine_of_differences": pairs.min().item(),
    }


def of_select(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """The greedy choice on the device and on the CPU, and whether both pick the same."""
    from activedpo_cli.bench.select import SelectPlan
    from activedpo_cli.select.design.greedy import greedy_uncertainty

    pairs, width, budget, labelled = (60, 64, 5, 10) if options.small else (3000, 8192, 50, 250)
    plan = SelectPlan(
        pairs=pairs, proj_dim=width, budget=budget, labelled=labelled, ridge=0.1, repeats=3, textbook_steps=1, seed=0
    )
    features, earlier, order = (
        plan.features(pairs, "candidates"),
        plan.features(labelled, "labelled"),
        torch.arange(pairs),
    )
    found: dict[str, Any] = {"pairs": pairs, "proj_dim": width, "budget": budget, "labelled": labelled}
    picks = {}
    for where in dict.fromkeys((device, torch.device("cpu"))):
        there = [features.to(where), earlier.to(where), order.to(where)]

        def choose(data: list[torch.Tensor] = there) -> list[int]:
            return greedy_uncertainty(data[0], data[1], plan.ridge, plan.budget, data[2])[0].tolist()

        picks[where.type] = choose()
        found[f"seconds_{where.type}"] = median(seconds(choose, where) for _ in range(plan.repeats))
        found[f"peak_gib_{where.type}"] = peak_memory(choose, where) / 2**30
    return found | {"same_picks": len({tuple(rows) for rows in picks.values()}) == 1}


def of_iteration(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Every stage of a run by its command: seconds, peak memory, and what was foretold of it."""
    with tempfile.TemporaryDirectory() as folder:
        model, run = random_base(Path(folder) / "model", small=options.small), Path(folder) / "run"
        few = {"generate.num_prompts": 4, "generate.max_new_tokens": 4, "select.budget": 2, "adapter.r": 2}
        usual = {"generate.num_prompts": 64, "generate.max_new_tokens": 64, "select.budget": 32, "adapter.r": 128}
        settings = {
            **(few if options.small else usual),
            "prompts.eval_prompts": 2 if options.small else 32,
            "featurize.proj_dim": 64 if options.small else 8192,
            "train.num_train_epochs": 1,
            "train.include_ties": True,  # random weights may well write nothing that is better
            "label.oracle": "python:activedpo_cli.tiny.rule:score",
        }
        command("init", "--run", run, "--model", model, "--prompts", "tiny", "--quiet", *assigned(settings))
        found = {stage: stage_of(stage, run, device) for stage in STAGES}
        for stage, foretold in foretold_memory(run, model, settings, device).items():
            found[stage]["foretold_gib"] = foretold
    return found


def stage_of(stage: str, run: Path, device: torch.device) -> dict[str, Any]:
    """One command."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    command(stage, "--run", run, "--device", device, "--quiet")
    manifest = json.loads((run / "iter-001" / stage / "manifest.json").read_bytes())
    peak = torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None
    return {"seconds": manifest["execution"]["seconds"], "peak_gib": peak}


def foretold_memory(run: Path, model: Path, settings: dict[str, Any], device: torch.device) -> dict[str, float]:
    """GiB of each stage by the configuration, for the prompts that the run had; CUDA's own part left out."""
    from activedpo_cli.base.config import build_config, nested
    from activedpo_cli.health.needs import CUDA_CONTEXT, estimate

    rows = [
        json.loads(line)
        for path in sorted((run / "iter-001" / "generate").glob("responses-*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]
    longest = max(len(row["prompt_token_ids"]) for row in rows)
    stages = estimate(build_config(nested(settings)), (str(model), None), device, longest).stages
    beside = CUDA_CONTEXT if device.type == "cuda" else 0
    return {need.stage: (need.bytes - beside) / 2**30 for need in stages if need.stage in MEASURED}


def of_quantised(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Whether `doctor` finds a base in 4 and in 8 bits fit on this device: it holds gradients against differences."""
    if importlib.util.find_spec("bitsandbytes") is None:
        return {"skipped": "bitsandbytes is not installed"}
    with tempfile.TemporaryDirectory() as folder:
        model = random_base(Path(folder) / "model", small=options.small)
        found = {}
        for bits in ("4bit", "8bit"):
            settings = assigned({"model.quantization": bits, "adapter.r": 8})
            found[bits] = command("doctor", "--model", model, "--device", device, *settings)
    return found


def random_base(folder: Path, *, small: bool) -> Path:
    """A Llama with random weights in bfloat16, and the tokenizer of the built-in model."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(HERE.parents[1] / "activedpo_cli" / "tiny" / "assets" / "language-model")
    sizes = THIN if small else BASE
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=1024, eos_token_id=tokenizer.eos_token_id, **sizes
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def assigned(settings: dict[str, Any]) -> list[str]:
    """As options."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def command(*words: object) -> list[str]:
    """Carry a command out in this process; returns the lines that it printed.

    Raises RuntimeError where it ends otherwise than with 0; the reason is on stderr then.
    """
    from activedpo_cli.cli.app import app

    said = io.StringIO()
    with redirect_stdout(said):
        code = app([str(word) for word in words], standalone_mode=False)
    if code:
        raise RuntimeError(f"`activedpo {words[0]}` ended with {code}")
    return said.getvalue().splitlines()


PARTS: dict[str, Part] = {
    "device": of_device,
    "iteration": of_iteration,
    "select": of_select,
    "features": of_features,
    "number formats": of_number_formats,
    "quantised": of_quantised,
}
"""In the order in which they are measured: what takes longest comes late."""


if __name__ == "__main__":
    main()
