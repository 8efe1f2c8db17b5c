"""Ways to collect per-response LoRA gradients for `peers.py`: this project's, plain loops, and peers but bergson.

Each function prepares a model and returns one pass over the responses. All take gradients of the same loss, computed
from the response's logits only, also where the peer's own scripts compute all logits.
"""

import math
import warnings
from collections.abc import Iterator

import torch
from peer_problem import Collect, Pieces, Problem, policy, require_adapter_gradients, summed_logps
from torch import Tensor

from activedpo_cli.gradients.batch import ResponseBatch, pad_responses

LESS_AT_A_TIME = 16
LESS_BLOCK_SIZE = 128


def project_batches(problem: Problem) -> list[ResponseBatch]:
    """The responses as this project takes them."""
    rows = [
        (batch[:, : problem.prompt_tokens].tolist(), batch[:, problem.prompt_tokens :].tolist())
        for batch in problem.token_ids.split(problem.batch_size)
    ]
    return [pad_responses(prompts, responses, pad_token_id=0, device="cpu") for prompts, responses in rows]


def prepare_plain(problem: Problem) -> Collect:
    """The yardstick: this project's forward and activation-only backward pass, without features."""
    from activedpo_cli.gradients.per_response import plain_pass

    model, batches = policy(), project_batches(problem)

    def collect() -> Iterator[Pieces]:
        for batch in batches:
            plain_pass(model, batch)
            yield []

    return collect


def prepare_own_plain(problem: Problem) -> Collect:
    """The yardstick's check, written apart from it: everything frozen, input embeddings as the graph's only leaf."""
    model = policy()
    embed = model.get_input_embeddings()

    def collect() -> Iterator[Pieces]:
        for token_ids in problem.token_ids.split(problem.batch_size):
            leaf = embed(token_ids).detach().requires_grad_(True)
            logps = summed_logps(model, token_ids, problem.prompt_tokens, inputs_embeds=leaf)
            torch.autograd.grad(logps.sum(), leaf)
            yield []

    return collect


def prepare_ours(kind: str, problem: Problem) -> Collect:
    """This project's features with the projection `kind`."""
    from activedpo_cli.gradients.per_response import response_gradients
    from activedpo_cli.gradients.projections import make_projection

    model, batches = policy(), project_batches(problem)
    projection = make_projection(kind, proj_dim=problem.proj_dim, seed=0)

    def collect() -> Iterator[Pieces]:
        for batch in batches:
            yield [response_gradients(model, batch, projection).features]

    return collect


def prepare_one_by_one(problem: Problem) -> Collect:
    """Autograd for one response at a time; its gradients are the exact ones that others are compared with."""
    model = policy()
    adapter = list(require_adapter_gradients(model).values())

    def collect() -> Iterator[Pieces]:
        for token_ids in problem.token_ids.split(1):
            logps = summed_logps(model, token_ids, problem.prompt_tokens)
            yield [gradient.flatten()[None] for gradient in torch.autograd.grad(logps.sum(), adapter)]

    return collect


def prepare_less_like(problem: Problem) -> Collect:
    """The order of work of LESS: one response at a time, whole gradients kept and densely projected 16 at once."""
    from trak.projectors import BasicProjector, ProjectionType

    gradients_one_by_one = prepare_one_by_one(problem)
    projector = BasicProjector(
        grad_dim=sum(piece.shape[1] for piece in next(gradients_one_by_one())),
        proj_dim=problem.proj_dim,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device=torch.device("cpu"),
        dtype=torch.float32,
        block_size=LESS_BLOCK_SIZE,
    )

    def collect() -> Iterator[Pieces]:
        waiting: list[Tensor] = []
        for done, pieces in enumerate(gradients_one_by_one(), start=1):
            waiting.append(torch.cat(pieces, dim=1))
            if len(waiting) == LESS_AT_A_TIME or done == len(problem.token_ids):
                yield [projector.project(torch.cat(waiting), model_id=0) / math.sqrt(problem.proj_dim)]
                waiting = []

    return collect


def prepare_torch_func(problem: Problem) -> Collect:
    """vmap(grad(...)) over the adapter's weights, with eager attention, which vmap can differentiate."""
    model = policy(attn_implementation="eager")
    adapter = {name: weight.detach() for name, weight in require_adapter_gradients(model).items()}

    def logp(adapter: dict[str, Tensor], token_ids: Tensor) -> Tensor:
        def call(**inputs: object) -> object:
            return torch.func.functional_call(model, adapter, (), inputs)

        return summed_logps(call, token_ids[None], problem.prompt_tokens)[0]

    per_response = torch.func.vmap(torch.func.grad(logp), in_dims=(None, 0))

    def collect() -> Iterator[Pieces]:
        for token_ids in problem.token_ids.split(problem.batch_size):
            yield [gradients.flatten(1) for gradients in per_response(adapter, token_ids).values()]

    return collect


def prepare_opacus(problem: Problem) -> Collect:
    """Full per-sample gradients by the hooks of opacus, which want a model in training mode; there is no dropout."""
    from opacus import GradSampleModule

    warnings.filterwarnings("ignore", message="Full backward hook is firing")  # the first layer's inputs need none
    model = policy()
    adapter = list(require_adapter_gradients(model).values())
    hooked = GradSampleModule(model.train(), loss_reduction="sum", strict=False)

    def collect() -> Iterator[Pieces]:
        for token_ids in problem.token_ids.split(problem.batch_size):
            summed_logps(hooked, token_ids, problem.prompt_tokens).sum().backward()
            pieces = [weight.grad_sample.flatten(1) for weight in adapter]  # type: ignore[attr-defined]
            hooked.zero_grad(set_to_none=True)
            yield pieces

    return collect
