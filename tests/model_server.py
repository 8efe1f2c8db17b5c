"""A server for completions in a thread of this process, with real models behind it, that fails as a test wants.

It speaks as vLLM does: token ids in and out, log-probabilities of prompts, adapters loaded by name. An adapter is merged
into weights of its own, so that what it computes is not what PEFT computes beside a base.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import torch
from judge_server import Listening, Raw
from peft import PeftModel
from small_policies import load
from transformers import PreTrainedModel

Change = Callable[[str, dict[str, Any], Any], Any]
"""Takes the path, what was asked and the answer, and gives the answer that is sent instead, or a `Raw` one."""


def refusal(status: int, message: str) -> Raw:
    return Raw(status, {"error": {"message": message, "type": "BadRequestError", "code": status}})


@dataclass
class ModelServer:
    """Where it listens, what it was asked, and how it behaves.

    `applies` is how much of an adapter is applied; `knows` what of its protocol it knows; `change` changes its answers.
    """

    url: str
    folder: Path
    name: str = "the-base"
    max_lora_rank: int = 16
    longest: int | None = None
    loads_adapters: bool = True
    sees_adapters: bool = True
    applies: float = 1.0
    dtype: str = "auto"
    change: Change = lambda path, body, answer: answer
    asked: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    models: dict[str, PreTrainedModel] = field(default_factory=dict)

    def bodies(self, *, sampling: bool = True) -> list[dict[str, Any]]:
        """What completions were asked for, of responses or of log-probabilities of a text."""
        return [
            body
            for path, body, _ in self.asked
            if path == "/completions" and ("n" in body and "return_token_ids" in body) == sampling
        ]

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/models":
            base = {"id": self.name, "object": "model", "parent": None, "max_model_len": self.longest}
            others = [{"id": name, "parent": self.name} for name in self.models if name != self.name]
            return {"object": "list", "data": [base, *others]}
        if path == "/load_lora_adapter" and self.loads_adapters:
            return self._load(body["lora_name"], Path(body["lora_path"]))
        if path == "/completions":
            return self._complete(body)
        return Raw(404, {"detail": "Not Found"})

    def _load(self, name: str, folder: Path) -> Any:
        if name in self.models:
            return refusal(400, f"The lora adapter '{name}' has already been loaded.")
        if not (self.sees_adapters and (folder / "adapter_config.json").is_file()):
            return refusal(404, f"Loading lora {name} failed: No adapter found for {folder}")
        config = json.loads((folder / "adapter_config.json").read_text())
        if config["r"] > self.max_lora_rank:
            return refusal(400, f"LoRA rank {config['r']} is greater than max_lora_rank {self.max_lora_rank}.")
        self.models[name] = _merged(self.folder, self.dtype, folder, name, self.applies)
        return Raw(200, f"Success: LoRA adapter '{name}' added successfully.".encode())

    def _complete(self, body: dict[str, Any]) -> Any:
        model = self.models.get(body["model"])
        if model is None:
            return refusal(404, f"The model `{body['model']}` does not exist.")
        choices = []
        for ids in body["prompt"]:
            if "prompt_logprobs" in body:
                choices.append(
                    {"index": 0, "text": "", "finish_reason": "length", "prompt_logprobs": _of_prompt(model, ids)}
                )
            elif body["echo"]:
                values = _logps(model, ids)
                choices.append(
                    {"index": 0, "text": "", "finish_reason": "length", "logprobs": {"token_logprobs": [None, *values]}}
                )
            else:
                known: dict[tuple[int, ...], torch.Tensor] = {}
                choices += [_sampled(model, ids, body, place, known) for place in range(body["n"])]
        return {"object": "text_completion", "model": body["model"], "choices": choices}


@lru_cache(maxsize=4)
def _base(folder: Path, dtype: str) -> PreTrainedModel:
    """Kept for the next server, since nothing changes what is served."""
    return load(folder, dtype=dtype)


@lru_cache(maxsize=8)
def _merged(base: Path, dtype: str, folder: Path, name: str, applies: float) -> PreTrainedModel:
    """Weights with an adapter in them, which its name identifies; kept for the next server."""
    policy = PeftModel.from_pretrained(load(base, dtype=dtype), str(folder))
    for parameter_name, parameter in policy.named_parameters():
        if "lora_B" in parameter_name:
            parameter.data *= applies
    return policy.merge_and_unload()


def _log_softmax(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1)


def _logps(model: PreTrainedModel, ids: list[int]) -> list[float]:
    rows = _log_softmax(model, ids)
    return [rows[place, token].item() for place, token in enumerate(ids[1:])]


def _of_prompt(model: PreTrainedModel, ids: list[int]) -> list[Any]:
    return [None] + [
        {str(token): {"logprob": value, "rank": 1}} for token, value in zip(ids[1:], _logps(model, ids), strict=True)
    ]


def _sampled(
    model: PreTrainedModel,
    prompt: list[int],
    body: dict[str, Any],
    place: int,
    known: dict[tuple[int, ...], torch.Tensor],
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(body["seed"] + place)
    ids, values, reason = list(prompt), [], "length"
    for _ in range(body["max_tokens"]):
        if tuple(ids) not in known:
            known[tuple(ids)] = _log_softmax(model, ids)[-1]
        logps = known[tuple(ids)]
        token = int(torch.multinomial((logps / body["temperature"]).softmax(-1), 1, generator=generator))
        ids.append(token)
        values.append(logps[token].item())
        if token in body["stop_token_ids"]:
            reason = "stop"
            break
    sampled = ids[len(prompt) :]
    return {
        "index": place,
        "text": "never read",
        "finish_reason": reason,
        "stop_reason": sampled[-1] if reason == "stop" else None,
        "token_ids": sampled,
        "prompt_token_ids": list(prompt),
        "logprobs": {"tokens": [f"token_id:{token}" for token in sampled], "token_logprobs": values},
    }


@contextmanager
def model_server(folder: Path, **behaviour: Any) -> Iterator[ModelServer]:
    """Serve a model until the block ends."""
    lock = threading.Lock()
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: dict[str, Any]) -> None:
            path = self.path.removeprefix("/v1")
            with lock:
                served.asked.append((path, body, dict(self.headers)))
                answer = served.change(path, body, served.answer(path, body))
            raw = answer if isinstance(answer, Raw) else Raw(body=answer)
            raw.send(self, ended)

        def log_message(self, *_: Any) -> None:
            pass

    server = Listening(Handler)
    served = ModelServer(f"http://127.0.0.1:{server.server_address[1]}/v1", folder, **behaviour)
    served.models[served.name] = _base(folder, served.dtype)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
