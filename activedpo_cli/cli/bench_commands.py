"""Measure what a stage costs with your model on your machine.

None of the commands needs a run.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from activedpo_cli.cli.help_text import HelpedCommand, HelpedGroup
from activedpo_cli.cli.options import DeviceOption, JsonOption, all_given, flags_of, with_settings
from activedpo_cli.cli.render import make_progress

DEFAULT_MODEL = "tiny-llama-15m"
DEFAULT_MODEL_ADAPTER = {"adapter.r": 32, "adapter.lora_alpha": 128.0, "adapter.target_modules": "all-linear"}
SETTINGS = flags_of(
    *("adapter.r", "adapter.lora_alpha", "adapter.target_modules"),
    *("featurize.proj_dim", "featurize.projection", "featurize.projection_width", "featurize.tokens_per_batch"),
    *("model.dtype", "model.attn_implementation", "seed"),
)

ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Alias, hub id or folder, or random weights: tiny-llama-15m, random-gemma-2b, random-qwen3-4b, "
        "random-llama-2-7b.",
    ),
]
OneAtATimeOption = Annotated[
    bool,
    typer.Option(
        "--one-at-a-time/--no-one-at-a-time",
        help="Also time responses one by one, at most 16, with one dense projection of their gradients.",
    ),
]
CheckpointingOption = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Trade time for memory, in both passes.")
]

bench = typer.Typer(
    name="bench",
    cls=HelpedGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure what a stage costs with your model on your machine.",
)


@bench.command(cls=HelpedCommand)
@with_settings(SETTINGS, panel="As in a run's settings")
def featurize(
    given: Mapping[str, Any],
    model: ModelOption = DEFAULT_MODEL,
    responses: Annotated[int, typer.Option(min=1, help="Responses, of random tokens.")] = 64,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each prompt.")] = 64,
    response_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each response.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, of which the median counts.")] = 5,
    one_at_a_time: OneAtATimeOption = True,
    gradient_checkpointing: CheckpointingOption = False,
    device: DeviceOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: JsonOption = False,
) -> None:
    """Time and memory of gradient features, beside a forward and backward pass without them.

    The LoRA adapter is random, A and B; for tiny-llama-15m the defaults are --lora-r 32 --lora-alpha 128
    --lora-modules all-linear. Reads and writes no run.

    Example:   activedpo bench featurize --model gemma-2b --responses 32 --prompt-tokens 256 --response-tokens 256
    """
    from activedpo_cli.base.config import with_changes
    from activedpo_cli.base.settings import Config
    from activedpo_cli.bench.featurize import FeaturizePlan, measure_featurize
    from activedpo_cli.bench.policy import PolicyRequest, load_policy
    from activedpo_cli.bench.workload import Workload
    from activedpo_cli.cli.bench_output import print_featurize

    defaults = DEFAULT_MODEL_ADAPTER if model == DEFAULT_MODEL else {}
    config = with_changes(Config(), {**defaults, **all_given(given, None)})
    how = config.featurize
    workload = Workload(responses, prompt_tokens, response_tokens, how.tokens_per_batch, config.seed)
    plan = FeaturizePlan(
        workload=workload,
        projection=how.projection,
        proj_dim=how.proj_dim,
        projection_width=how.projection_width,
        repeats=repeats,
        seed=config.seed,
        gradient_checkpointing=gradient_checkpointing,
        one_at_a_time=one_at_a_time,
    )
    request = PolicyRequest(
        model=model,
        device=device,
        dtype=config.model.dtype,
        attn_implementation=config.model.attn_implementation,
        lora_r=config.adapter.r,
        lora_alpha=config.adapter.lora_alpha,
        lora_modules=config.adapter.target_modules,
        seed=config.seed,
    )
    cost = measure_featurize(load_policy(request, workload), plan, make_progress(quiet or json))
    print_featurize(request, plan, cost, json=json)


@bench.command(cls=HelpedCommand)
def select(
    pairs: Annotated[int, typer.Option(min=2, help="Candidates in memory, of random float32 features.")] = 3000,
    proj_dim: Annotated[int, typer.Option(min=1, help="Features of each.")] = 8192,
    budget: Annotated[int, typer.Option(min=1, help="Pairs to pick.")] = 50,
    labelled: Annotated[int, typer.Option(min=0, help="Pairs labelled earlier.")] = 250,
    ridge: Annotated[float, typer.Option(help="λ.")] = 0.1,
    repeats: Annotated[int, typer.Option(min=1, help="Repetitions, of which the median counts.")] = 5,
    textbook_steps: Annotated[
        int, typer.Option(min=1, help="Picks of the paper's step as written that are timed, and scaled.")
    ] = 2,
    streamed: Annotated[
        bool, typer.Option("--streamed/--no-streamed", help="Also pick among float16 features in a temporary file.")
    ] = True,
    streamed_pairs: Annotated[int, typer.Option(min=2, help="Candidates there.")] = 1_000_000,
    streamed_proj_dim: Annotated[int, typer.Option(min=1, help="Features of each.")] = 512,
    memory: Annotated[float, typer.Option(min=0, metavar="GB", help="Features held at once there.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of the features.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: JsonOption = False,
) -> None:
    """Time and memory of the greedy choice, beside V⁻¹ kept in place and the paper's step as written.

    On the CPU. Reads and writes no run; the temporary file of the streamed part takes 1 GB and goes away again.

    Example:   activedpo bench select --pairs 1000 --proj-dim 1024 --no-streamed
    """
    from activedpo_cli.base.errors import UsageError
    from activedpo_cli.bench.select import SelectPlan, measure_select
    from activedpo_cli.bench.select_streamed import StreamedPlan, measure_streamed
    from activedpo_cli.cli.bench_output import print_select
    from activedpo_cli.select.method_settings import check_ridge

    check_ridge(ridge, "--ridge 0.1")
    if budget > min(pairs, streamed_pairs):
        raise UsageError(f"--budget {budget} is more than there are candidates", hint=f"--budget {pairs}")
    plan = SelectPlan(
        pairs=pairs,
        proj_dim=proj_dim,
        budget=budget,
        labelled=labelled,
        ridge=ridge,
        repeats=repeats,
        textbook_steps=textbook_steps,
        seed=seed,
    )
    larger = StreamedPlan(
        pairs=streamed_pairs,
        proj_dim=streamed_proj_dim,
        budget=budget,
        labelled=labelled,
        ridge=ridge,
        memory=int(memory * 1e9),
        seed=seed,
    )
    progress = make_progress(quiet or json)
    # The streamed part comes first, since a process inherits the peak memory of the process that starts it.
    of_stream = measure_streamed(larger, progress) if streamed else None
    print_select(plan, measure_select(plan, progress), larger, of_stream, json=json)
