"""Collects the prompts of a run: each once, with its id, and with the held-out ones split off."""

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from activedpo_cli.base.digests import sha256_of
from activedpo_cli.base.discovery import available, load, option_value, resolve
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import Prompt, PromptText
from activedpo_cli.base.seeds import derive_seed
from activedpo_cli.base.settings import PromptSettings
from activedpo_cli.base.tables import TABLE_SUFFIXES, is_table_path
from activedpo_cli.prompts._files import read_file
from activedpo_cli.prompts._hub import read_hub
from activedpo_cli.prompts.base import SourcePrompt


@dataclass(frozen=True, kw_only=True)
class PromptCollection:
    """The prompts of a run, in source order.

    `dropped_duplicates` says where the repetitions stood that were left out. `source_digest` is the sha256 of the
    source file's bytes, None for a source that is no file.
    """

    prompts: list[Prompt]
    dropped_duplicates: list[str]
    source_digest: str | None


def collect_prompts(settings: PromptSettings, seed: int, *, skip_empty: bool = False) -> PromptCollection:
    """Read the source, drop repetitions, draw `limit` prompts, and hold out `eval_prompts` of them.

    `skip_empty` passes over prompts of a file that have no text, for whoever counts its rows.

    Ids count the prompts kept, in source order: `p000000`, `p000001`, …. Equal settings, seed and source give an equal
    collection.

    Raises:
        InvalidDataError: the source cannot be read, repeats a prompt where that is an error or with another split, or has
            too few prompts.
        UsageError: the source's name means nothing, or it is no file and `split_column` is set.

    """
    path = source_path(settings.source)
    kept, dropped = _without_duplicates(_read_source(settings, path, skip_empty), settings.duplicates)
    if any(item.split for item in kept):
        prompts = _with_given_splits(kept, settings, seed)
    else:
        prompts = _split(_drawn(kept, settings.limit, seed, "limit"), settings.eval_prompts, seed)
    return PromptCollection(
        prompts=prompts, dropped_duplicates=dropped, source_digest=sha256_of(path) if path else None
    )


def source_path(source: str) -> Path | None:
    """The file that a source means, or None where it is a named source or a dataset id.

    A known suffix or a leading `.`, `/` or `~` always mean a file; a named source goes before a file of that name, and
    what is there goes before a dataset id.
    """
    path = Path(source).expanduser()
    if is_table_path(source) or source.startswith((".", "/", "~")):
        return path
    if option_value(source) in available("prompts"):
        return None
    return path if path.exists() else None


def prompt_key(prompt: PromptText) -> str:
    """Text that is equal for equal prompts only; a single message of the user is the text that it holds.

    Messages are only read where a chat template renders them, and there a text becomes such a message.
    """
    if isinstance(prompt, list) and len(prompt) == 1 and prompt[0]["role"] == "user":
        prompt = prompt[0]["content"]
    return json.dumps(prompt, ensure_ascii=False, sort_keys=True)


def _read_source(settings: PromptSettings, path: Path | None, skip_empty: bool) -> Iterator[SourcePrompt]:
    source = settings.source
    if path is not None:
        return read_file(
            path,
            settings.column,
            split_column=settings.split_column,
            skip_empty=skip_empty,
            template_kwargs=settings.template_kwargs,
        )
    if settings.split_column is not None:
        raise UsageError(
            f"`{source}` is no file, and only the rows of a file can say by `{settings.split_column}` what is held out",
            hint="--prompts FILE.jsonl",
        )
    if "/" in source:
        return read_hub(source, settings.dataset_split, settings.column, settings.template_kwargs)
    return load("prompts", _named_source(source)).read(settings)


def _named_source(source: str) -> str:
    try:
        return resolve("prompts", source)
    except UsageError as error:
        details = [*error.details, f"a file ends in {', '.join(TABLE_SUFFIXES)}", "a hub dataset id is OWNER/NAME"]
        raise UsageError(error.message, details=details, hint="--prompts FILE.jsonl") from error


def _without_duplicates(found: Iterable[SourcePrompt], rule: str) -> tuple[list[SourcePrompt], list[str]]:
    first: dict[str, SourcePrompt] = {}
    dropped = []
    for item in found:
        earlier = first.setdefault(prompt_key(item.prompt), item)
        if earlier is item:
            continue
        if item.split != earlier.split:
            raise InvalidDataError(
                f"{item.origin} repeats the prompt of {earlier.origin}, and is for `{item.split}`, not `{earlier.split}`",
                hint="leave one of the two rows out: what is held out can't be in the pool",
            )
        if rule == "error":
            raise InvalidDataError(
                f"{item.origin} repeats the prompt of {earlier.origin}", hint="--set prompts.duplicates=drop"
            )
        dropped.append(item.origin)
    return list(first.values()), dropped


def _drawn(items: list[SourcePrompt], number: int | None, seed: int, purpose: str) -> list[SourcePrompt]:
    """That many of the items, in their order; all where there are no more."""
    if number is None or number >= len(items):
        return items
    positions = random.Random(derive_seed(seed, purpose)).sample(range(len(items)), number)
    return [items[position] for position in sorted(positions)]


def _with_given_splits(kept: list[SourcePrompt], settings: PromptSettings, seed: int) -> list[Prompt]:
    """Held-out prompts are drawn from those meant for it; the rest of these is not used."""
    meant = [item for item in kept if item.split == "eval"]
    pool = [item for item in kept if item.split == "train"]
    if len(meant) + len(pool) < len(kept) or not pool or not meant:
        raise InvalidDataError(
            f"`{settings.source}` marks {len(pool)} prompts for the pool and {len(meant)} for evaluation, of {len(kept)}",
            details=["a source marks every prompt or none, and both parts need some"],
        )
    if len(meant) < settings.eval_prompts:
        raise InvalidDataError(
            f"`{settings.source}` has {len(meant)} prompts for evaluation, fewer than {settings.eval_prompts}",
            hint=f"--eval-prompts {len(meant)}",
        )
    if settings.limit is not None and settings.limit <= settings.eval_prompts:
        raise InvalidDataError(
            f"a limit of {settings.limit} prompts leaves none beside {settings.eval_prompts} held-out ones",
            hint=f"--set prompts.limit={settings.eval_prompts + 1}",
        )
    pool = _drawn(pool, None if settings.limit is None else settings.limit - settings.eval_prompts, seed, "limit")
    used = [*pool, *_drawn(meant, settings.eval_prompts, seed, "split")]
    return [_prompt(position, item, item.split == "eval") for position, item in enumerate(used)]


def _split(kept: list[SourcePrompt], eval_prompts: int, seed: int) -> list[Prompt]:
    if len(kept) <= eval_prompts:
        there = counted(len(kept), "distinct prompt", ("is", "are"))
        raise InvalidDataError(
            f"{there} too few to hold out {eval_prompts} and train on the rest",
            hint=f"--eval-prompts {max(1, len(kept) // 5)}" if len(kept) > 1 else "--prompts FILE.jsonl",
        )
    held_out = set(random.Random(derive_seed(seed, "split")).sample(range(len(kept)), eval_prompts))
    return [_prompt(position, item, position in held_out) for position, item in enumerate(kept)]


def _prompt(position: int, item: SourcePrompt, is_held_out: bool) -> Prompt:
    return Prompt(prompt_id=f"p{position:06d}", split="eval" if is_held_out else "train", prompt=item.prompt)
