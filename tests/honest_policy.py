"""A run's policies as transformers and peft load them, without this package; one response at a time, no padding."""

import json
from pathlib import Path
from typing import Any

import torch
from command_line import rows
from peft import PeftModel
from transformers import AutoModelForCausalLM


def load(run: Path, adapter: Path | None) -> Any:
    """π_SFT, or a policy with trainable adapter on top of it."""
    base = json.loads((run / "reference" / "base.json").read_bytes())
    folder = run / base["path"] if base["stored_in_run"] else Path(base["path"])
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    return model if adapter is None else PeftModel.from_pretrained(model, str(adapter), is_trainable=True).eval()


def logp(model: Any, response: dict[str, Any]) -> torch.Tensor:
    """Log π(y | x), summed over the stored response tokens."""
    prompt, answer = response["prompt_token_ids"], response["token_ids"]
    logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].double()
    logps = torch.log_softmax(logits, dim=-1)
    return sum(logps[len(prompt) - 1 + place, token] for place, token in enumerate(answer))  # type: ignore[return-value]


def logps(model: Any, responses: list[dict[str, Any]]) -> list[float]:
    """The same for several, without gradients."""
    with torch.no_grad():
        return [float(logp(model, response)) for response in responses]


def gradient_norm(model: Any, response: dict[str, Any]) -> float:
    """‖∇ log π(y | x)‖ over the LoRA parameters."""
    parameters = [parameter for name, parameter in model.named_parameters() if "lora_" in name]
    gradients = torch.autograd.grad(logp(model, response), parameters, allow_unused=True)
    return float(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm())


def responses_of(run: Path, iteration: int, stage: str = "generate") -> dict[str, dict[str, Any]]:
    """The responses of an iteration by id."""
    folder = run / "reference" / stage if iteration == 0 else run / f"iter-{iteration:03d}" / stage
    return {row["response_id"]: row for path in sorted(folder.glob("responses-*.jsonl")) for row in rows(path)}
