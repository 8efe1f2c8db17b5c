"""Make the built-in task's files anew: in `tests`, `python -m built_in_task.build --text STORIES.txt --work FOLDER`.

Tokenizer, language model, responses, reward model, prompts and card are made one after the other below the work folder;
what is there is kept, and the trainings go on at their newest checkpoint; a folder begun with other options is refused. At
the end everything that ships stands in `WORK/assets`. One seed decides everything; the floats differ between machines.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any

import typer

from activedpo_cli.base.errors import ActiveDPOError, UsageError
from built_in_task.card import Measurements, card, measure
from built_in_task.corpus import Corpus
from built_in_task.language_model import LanguageModelPlan, sample_responses, train_language_model
from built_in_task.reward_model import RewardModelPlan, draw_preferences, train_reward_model
from built_in_task.stories import draw_prompts
from built_in_task.tokenizer import train_tokenizer, with_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TRAIN_PROMPTS, EVAL_PROMPTS = 1000, 200


@dataclass(frozen=True)
class BuildPlan:
    """What is made, where, and how big."""

    work: Path
    text: tuple[Path, ...] = ()
    dictionary: Path | None = None
    note: str = ""
    seed: int = 0
    language_model: LanguageModelPlan = field(default_factory=LanguageModelPlan)
    reward_model: RewardModelPlan = field(default_factory=RewardModelPlan)
    reward_prompts: int = 2500
    responses: int = 4
    measured_prompts: int = 100


def build(plan: BuildPlan, say: Callable[[str], None]) -> Path:
    """Make what is missing and return the folder with the files that ship."""
    plan.work.mkdir(parents=True, exist_ok=True)
    _check_plan(plan)
    corpus = Corpus(plan.text, plan.seed)
    _made(plan.work / "tokenizer", say, lambda folder: _save_tokenizer(corpus, plan, folder))
    _made(plan.work / "language-model", say, lambda folder: _save_language_model(corpus, plan, folder))
    _made(plan.work / "responses", say, lambda folder: _save_responses(plan, folder))
    _made(plan.work / "reward-model", say, lambda folder: _save_reward_model(plan, folder))
    return _made(plan.work / "assets", say, lambda folder: _save_assets(corpus, plan, folder))


def main(
    work: Annotated[Path, typer.Option(help="Folder for everything made; the same one goes on where it stopped.")],
    text: Annotated[list[Path], typer.Option(help="Story file, plain or .gz; may be repeated.")] = [],  # noqa: B006
    dictionary: Annotated[Path | None, typer.Option(help="Word list, a word a line, for the card.")] = None,
    note: Annotated[str, typer.Option(help="Where the story files come from, for the card.")] = "",
    seed: int = 0,
    steps: Annotated[int, typer.Option(help="Updates of the language model.")] = LanguageModelPlan.steps,
) -> None:
    """Make the built-in task's models, prompts and card."""
    plan = BuildPlan(work, tuple(text), dictionary, note, seed, LanguageModelPlan(steps=steps))
    try:
        typer.echo(build(plan, lambda line: typer.echo(line, err=True)))
    except ActiveDPOError as error:
        typer.echo(f"error: {error.message}\n\nhint: {error.hint}", err=True)
        raise typer.Exit(error.exit_code) from error


def _check_plan(plan: BuildPlan) -> None:
    """Refuse to mix what two plans made; the text files count by their content."""
    facts = asdict(plan) | {"work": None, "text": [hashlib.sha256(path.read_bytes()).hexdigest() for path in plan.text]}
    written = json.dumps(facts, indent=1, default=str)
    path = plan.work / "plan.json"
    if not path.exists():
        path.write_text(written)
    elif path.read_text() != written:
        raise UsageError(f"`{plan.work}` was begun with other options", hint="use another --work folder")


def _made(folder: Path, say: Callable[[str], None], make: Callable[[Path], None]) -> Path:
    """The folder, made in one piece where it was missing."""
    if folder.is_dir():
        say(f"{folder.name}: there already")
        return folder
    say(f"{folder.name}: making it")
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    make(unfinished)
    unfinished.rename(folder)
    return folder


def _save_tokenizer(corpus: Corpus, plan: BuildPlan, folder: Path) -> None:
    sizes = plan.language_model
    train_tokenizer(corpus.tokenizer_texts(), sizes.vocabulary, sizes.context).save_pretrained(folder)


def _save_language_model(corpus: Corpus, plan: BuildPlan, folder: Path) -> None:
    tokenizer = _tokenizer(plan)
    model = train_language_model(corpus, tokenizer, plan.language_model, plan.work / "lm", plan.seed)
    _save_model(model, tokenizer, folder)


def _save_responses(plan: BuildPlan, folder: Path) -> None:
    """Responses to prompts that do not ship, as the reward model's training text."""
    prompts = [p for p in draw_prompts(plan.reward_prompts, _random(plan, "reward")) if p not in _shipped(plan)]
    texts = sample_responses(_language_model(plan), _tokenizer(plan), prompts, plan.responses, plan.seed)
    (folder / "responses.json").write_text(json.dumps(dict(zip(prompts, texts, strict=True))))


def _save_reward_model(plan: BuildPlan, folder: Path) -> None:
    sizes = plan.reward_model
    responses = json.loads((plan.work / "responses" / "responses.json").read_text())
    preferences = draw_preferences(responses, sizes.noise, _random(plan, "preferences"))
    tokenizer = _ending(plan)
    model = train_reward_model(_language_model(plan), tokenizer, preferences, sizes, plan.work / "rm", plan.seed)
    _save_model(model, tokenizer, folder)


def _save_assets(corpus: Corpus, plan: BuildPlan, folder: Path) -> None:
    for name in ("language-model", "reward-model"):
        shutil.copytree(plan.work / name, folder / name)
    train, held_out = _prompts(plan)
    (folder / "prompts-train.txt").write_text("\n".join(train) + "\n")
    (folder / "prompts-eval.txt").write_text("\n".join(held_out) + "\n")
    (folder / "MODEL_CARD.md").write_text(
        card(plan.language_model, plan.reward_model, plan.note, _measured(corpus, plan))
    )


def _measured(corpus: Corpus, plan: BuildPlan) -> Measurements:
    """On prompts of their own, which neither ship nor taught the reward model."""
    used = _shipped(plan) | set(json.loads((plan.work / "responses" / "responses.json").read_text()))
    drawn = draw_prompts(plan.measured_prompts, _random(plan, "measured"))
    return measure(
        _language_model(plan),
        _tokenizer(plan),
        _reward_model(plan),
        _ending(plan),
        corpus,
        [prompt for prompt in drawn if prompt not in used],
        plan.dictionary,
        plan.seed,
    )


def _prompts(plan: BuildPlan) -> tuple[list[str], list[str]]:
    drawn = draw_prompts(TRAIN_PROMPTS + EVAL_PROMPTS, _random(plan, "prompts"))
    return drawn[:TRAIN_PROMPTS], drawn[TRAIN_PROMPTS:]


def _shipped(plan: BuildPlan) -> set[str]:
    return {prompt for part in _prompts(plan) for prompt in part}


def _random(plan: BuildPlan, purpose: str) -> Random:
    return Random(f"{plan.seed} {purpose}")


def _tokenizer(plan: BuildPlan) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(plan.work / "tokenizer")


def _ending(plan: BuildPlan) -> "PreTrainedTokenizerFast":
    """The tokenizer as the reward model uses it."""
    return with_template(_tokenizer(plan).backend_tokenizer.to_str(), plan.language_model.context, ends=True)


def _language_model(plan: BuildPlan) -> Any:
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(plan.work / "language-model", dtype=torch.float32).eval()


def _reward_model(plan: BuildPlan) -> Any:
    import torch
    from transformers import LlamaForSequenceClassification

    return LlamaForSequenceClassification.from_pretrained(plan.work / "reward-model", dtype=torch.float32).eval()


def _save_model(model: Any, tokenizer: "PreTrainedTokenizerFast", folder: Path) -> None:
    """Weights in bfloat16, half the bytes; everything is measured with what was saved."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors writes files that only their owner can read


if __name__ == "__main__":
    typer.run(main)
