"""Responses made elsewhere: turned into tokens once, stored once, used by every iteration."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import prompt_rendering, prompt_rendering_settings
from activedpo_cli.base.digests import digest_of_file
from activedpo_cli.base.errors import RefusedError, naming
from activedpo_cli.base.numbers import counted
from activedpo_cli.base.records import GivenPair, LeftOutRow, Prompt, Response, UnreadScore
from activedpo_cli.base.settings import Config
from activedpo_cli.engine import parts
from activedpo_cli.engine.differences import differences_of_work, digest_of_known, with_known_files
from activedpo_cli.engine.intact import check_intact
from activedpo_cli.engine.parts import Part
from activedpo_cli.engine.step import Context
from activedpo_cli.engine.units import AtOnce
from activedpo_cli.generate.prompts_as_read import PromptsAsRead, named_repetitions, refuse_repetitions
from activedpo_cli.models.resolve import ModelLocation
from activedpo_cli.pairs.candidates import pairable, pairs_by_prompt
from activedpo_cli.policy.policy import load_tokenizer_of, model_location, reference_digest
from activedpo_cli.policy.rendering_check import check_rendering, check_turn_end, named
from activedpo_cli.store.manifest import Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from activedpo_cli.generate.backends._gathering import RecordedPrompt
    from activedpo_cli.generate.backends._recorded import PoolResponse, RecordedPairs

POOL_VERSION = 6
STOPS = "generate.stop_token_ids"
FILE = "responses file"
"""The name of the file among the inputs."""
FILES = {"generate.responses": FILE}


def file_digest(run: Run, config: Config) -> str:
    """The digest of the responses file: as the pool recorded it where that is in use or the file is gone, else computed."""
    assert config.generate.responses is not None
    responses, manifest = config.generate.responses, run.pool.manifest
    if manifest and manifest.settings["generate.responses"] == responses and _is_drawn_from(run):
        return manifest.inputs[FILE]
    return digest_of_known(manifest, "generate.responses", FILE, responses)


def check(run: Run, config: Config) -> None:
    """Once an iteration has begun with the pool, refuse another responses file, or another way to read it."""
    if run.pool.manifest and _is_drawn_from(run):
        wanted = _wanted(run, _settings(config), file_digest(run, config))
        _refuse(differences_of_work(run.pool.manifest, wanted, FILES))


def with_known_file(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """Given settings in which the file of the run's pool goes by the path under which the pool knows it.

    Raises RefusedError when iterations were drawn from the pool and the content of the file given now is another.
    """
    manifest = run.pool.manifest
    if manifest is None or not given.get("generate.responses"):
        return dict(given)
    path, known = Path(given["generate.responses"]), manifest.settings["generate.responses"]
    if not path.is_file():
        return {**given, "generate.responses": known} if path.absolute() == Path(known).absolute() else dict(given)
    digest = digest_of_file(path)
    if digest != manifest.inputs[FILE] and _is_drawn_from(run):
        changed = {**manifest.settings, "generate.responses": str(path)}
        _refuse(differences_of_work(manifest, _wanted(run, changed, digest), FILES))
    return with_known_files(manifest, FILES, given)


def ensure(context: Context) -> None:
    """Make the pool if it is not there yet; one made otherwise, from which nothing was drawn, is moved to `.stale/`."""
    run, stage = context.run, context.folder.started
    assert stage is not None
    pool = Part(
        folder=run.pool,
        lock=run.lock_path("pool"),
        wanted=_wanted(run, _settings(context.settings), stage.inputs[FILE]),
        open=lambda folder: AtOnce(lambda: _fill(context, folder)),
        files=FILES,
        stale=run.stale,
        is_usable=lambda folder: check_intact(run, folder),
    )
    parts.ensure(pool, context.execution, context.progress)


def _wanted(run: Run, settings: Mapping[str, Any], digest: str) -> Started:
    """The record of the pool as it is made now; one that iterations were drawn from stands, whichever version made it."""
    made = run.pool.manifest if _is_drawn_from(run) else None
    unread = {STOPS} - made.settings.keys() if made else set()  # earlier versions did not look at that setting
    return Started(
        stage="pool",
        stage_version=made.stage_version if made else POOL_VERSION,
        iteration=0,
        settings={key: value for key, value in settings.items() if key not in unread},
        inputs={FILE: digest, "prompts": run.facts["prompts_digest"], "reference": reference_digest(run)},
    )


def pairable_prompts(run: Run, config: Config) -> dict[str, int]:
    """The prompts whose responses in the pool form at least one pair, and how many responses each has."""
    found: dict[str, int] = {}
    given = pairs_by_prompt(run) if config.generate.recorded_pairs == "given" else None
    for prompt_id, group in groupby(run.pool_responses(), key=lambda response: response.prompt_id):
        responses = list(group)
        if pairable(responses, given, drop_truncated=config.generate.truncated == "drop"):
            found[prompt_id] = len(responses)
    return found


def _is_drawn_from(run: Run) -> bool:
    """Whether an iteration has begun with the pool; a pool that only a failed command made may be replaced."""
    folders = [run.stage("generate", iteration) for iteration in run.iterations()]
    records = [folder.manifest or folder.started for folder in folders]
    return any(record is not None and record.settings.get("generate.responses") for record in records)


def _refuse(differences: list[str]) -> None:
    if differences:
        raise RefusedError(
            "the run has a pool of responses already, made otherwise",
            details=differences,
            hint="make another run with `activedpo init --run OTHER_NAME …`",
        )


def _settings(config: Config) -> dict[str, Any]:
    return {
        "generate.responses": config.generate.responses,
        "generate.recorded_eos": config.generate.recorded_eos,
        "generate.recorded_pairs": config.generate.recorded_pairs,
        STOPS: config.generate.stop_token_ids,
        **prompt_rendering_settings(config),
    }


def _fill(context: Context, folder: StageFolder) -> dict[str, Any]:
    from activedpo_cli.generate.backends._recorded import match_to_prompts, read_recorded, read_recorded_pairs
    from activedpo_cli.models.encoding import renders_plain_text, stop_token_ids
    from activedpo_cli.models.loading import generation_config_at

    assert context.settings.generate.responses is not None
    prompts = context.run.prompts()
    path = Path(context.settings.generate.responses)
    tokenizer = load_tokenizer_of(context.run)
    check_rendering(tokenizer, named(prompts), context.settings, context.progress, is_first=True, are_given=True)
    stops = stop_token_ids(
        tokenizer, generation_config_at(*model_location(context.run)), context.settings.generate.stop_token_ids
    )
    check_turn_end(tokenizer, named(prompts), context.settings, context.progress, stops, is_first=True)
    asked = _as_read(prompts, context.settings, tokenizer)
    refuse_repetitions(context.settings, prompts, lambda prompt: asked.tokens[prompt.prompt_id])
    say, kwargs = context.progress.warn, context.settings.prompts.template_kwargs
    are_pairs = context.settings.generate.recorded_pairs == "given"
    read = read_recorded_pairs(path, say, template_kwargs=kwargs, as_read=asked.first) if are_pairs else None
    found = read.prompts if read else read_recorded(path, say, template_kwargs=kwargs, as_read=asked.first)
    match = match_to_prompts(found, [prompt for prompt in prompts if prompt.prompt_id not in asked.repeated])
    _tell_of_repeated_prompts(context, asked)
    responses, dropped = _encode(
        context.settings, model_location(context.run), tokenizer, prompts, asked.tokens, match.pool
    )
    counts = Counter(dropped.values())
    kept = {response.response_id for response in responses}
    preferences = [
        preference
        for preference in match.preferences
        if preference.response_a_id in kept and preference.response_b_id in kept
    ]
    folder.write_rows("responses.jsonl", responses)
    folder.write_rows("preferences.jsonl", preferences)
    _keep_unread_scores(context, folder, match.pool)
    facts = {
        "rendered": renders_plain_text(tokenizer, context.settings.prompts.chat_template),
        "responses": len(responses),
        "too_long": counts["too_long"],
        "same_tokens": counts["same_tokens"],
        "prompts_without_responses": match.prompts_without_responses,
        "unmatched_prompts_in_file": match.unmatched,
        **({"held_out": counts["held_out"]} if counts["held_out"] else {}),
    }
    if read is not None:
        facts |= _keep_pairs(context, folder, read, match.pairs, dropped)
    if read is None or match.unmatched:
        _tell_of_responses(context, facts)
    return facts


def _keep_unread_scores(context: Context, folder: StageFolder, pool: "Sequence[PoolResponse]") -> None:
    """Store which values are no numbers, and say so where other responses have a number of that name."""
    numbers = Counter(name for response in pool for name in response.scores or {})
    others = Counter(name for response in pool for name in response.unread)
    first = {name: value for response in reversed(pool) for name, value in response.unread.items()}
    found = [UnreadScore(name=name, numbers=numbers[name], others=others[name], first=first[name]) for name in others]
    if found:
        folder.write_rows("unread-scores.jsonl", found)
    for row in found:
        if row.numbers:
            context.progress.warn(
                f"`{row.name}` is a number in {counted(row.numbers, 'response')} and none that can be read in {row.others} "
                f"({row.first})"
            )


def _keep_pairs(
    context: Context,
    folder: StageFolder,
    read: "RecordedPairs",
    pairs: Sequence[GivenPair],
    dropped: Mapping[str, str],
) -> dict[str, Any]:
    """Store the pairs both of whose responses were kept, and the rows that were left out, and say how many there are."""
    fitting = []
    for pair in pairs:
        reason = dropped.get(pair.response_a_id) or dropped.get(pair.response_b_id)
        if reason is None:
            fitting.append(pair)
        else:
            read.left_out.add(reason, pair.line)
    left_out = [LeftOutRow(line=line, reason=why) for why, lines in read.left_out.lines.items() for line in lines]
    folder.write_rows("pairs.jsonl", fitting)
    folder.write_rows("left-out.jsonl", sorted(left_out, key=lambda row: row.line))
    rows, candidates = counted(read.rows, "row"), counted(len(fitting), "candidate")
    said = f"{rows} of {context.settings.generate.responses}: {candidates}"
    if left_out:
        context.progress.warn(f"{said}; {read.left_out.in_words()}")
    else:
        context.progress.note(said)
    return {"rows": read.rows, "pairs": len(fitting), "left_out_rows": read.left_out.counts()}


def _as_read(prompts: Sequence[Prompt], config: Config, tokenizer: "PreTrainedTokenizerBase") -> PromptsAsRead:
    from activedpo_cli.models.encoding import encode_prompt
    from activedpo_cli.models.quiet import quiet_libraries

    with quiet_libraries():  # they warn of texts beyond the context, which are counted where responses are encoded
        return PromptsAsRead(prompts, lambda prompt: encode_prompt(tokenizer, prompt, **prompt_rendering(config)))


def _tell_of_repeated_prompts(context: Context, asked: PromptsAsRead) -> None:
    """Warn of prompts that are one to the model, whose responses are gathered as answers to one."""
    for split, what in (("train", "prompt of the pool"), ("eval", "held-out prompt")):
        if repeated := asked.met_of(split):
            said = named_repetitions(repeated, what)
            context.progress.warn(f"{said}; what is recorded about them counts as about one prompt")


def _tell_of_responses(context: Context, facts: Mapping[str, Any]) -> None:
    if facts.get("held_out"):
        context.progress.warn(
            f"left out {counted(facts['held_out'], 'response')} to prompts of the pool that the model reads as it reads "
            "held-out ones"
        )
    if facts["same_tokens"]:
        context.progress.warn(
            f"left out {counted(facts['same_tokens'], 'response')} in which the model's tokenizer sees nothing, or the "
            "same as in another to their prompt: no preference between such can be trained on"
        )
    context.progress.note(
        f"pool: {counted(facts['responses'], 'response')}; left out: {counted(facts['too_long'], 'response')} longer than "
        f"the model's context, {counted(facts['unmatched_prompts_in_file'], 'prompt')} of the file not in the run"
    )


def fitting_pairs(
    path: Path, recorded: "Sequence[RecordedPrompt]", config: Config, location: ModelLocation
) -> list[int]:
    """How many pairs are left for each prompt of a file that has any left, of the prompts that it holds as it spells them.

    Pairs that the model reads as others are one, and responses that training can't use are dropped with their pairs.
    """
    from activedpo_cli.generate.backends._recorded import match_to_prompts, read_recorded_pairs
    from activedpo_cli.models.loading import load_tokenizer

    prompts = [Prompt(prompt_id=f"p{n:06d}", split="train", prompt=item.prompt) for n, item in enumerate(recorded)]
    model = location.source, location.revision
    tokenizer = load_tokenizer(*model)
    asked = _as_read(prompts, config, tokenizer)
    if asked.repeated:
        kwargs = config.prompts.template_kwargs
        recorded = read_recorded_pairs(path, template_kwargs=kwargs, as_read=asked.first).prompts
    match = match_to_prompts(recorded, prompts)
    responses, _ = _encode(config, model, tokenizer, prompts, asked.tokens, match.pool)
    kept = {response.response_id for response in responses}
    left = Counter(pair.prompt_id for pair in match.pairs if {pair.response_a_id, pair.response_b_id} <= kept)
    return list(left.values())


def _encode(
    config: Config,
    model: tuple[str, str | None],
    tokenizer: "PreTrainedTokenizerBase",
    prompts: list[Prompt],
    prompt_tokens: Mapping[str, list[int]],
    pool: list[Any],
) -> tuple[list[Response], dict[str, str]]:
    """The responses that training can use, as tokens; and by id why each of the others was dropped (see `LEFT_OUT`)."""
    from activedpo_cli.models.encoding import answer_end, encode_response_text
    from activedpo_cli.models.loading import context_length_at, generation_config_at
    from activedpo_cli.models.quiet import quiet_libraries

    longest = context_length_at(*model)
    stops = config.generate.stop_token_ids
    end = answer_end(tokenizer, generation_config_at(*model), stops, **prompt_rendering(config))
    with quiet_libraries():  # they warn of texts beyond the context, which are counted here
        as_held_out = _read_as_held_out(prompts, prompt_tokens)
        rows: list[Response] = []
        dropped: dict[str, str] = {}
        seen: set[tuple[str, tuple[int, ...]]] = set()
        for recorded in pool:
            if recorded.prompt_id in as_held_out:
                dropped[recorded.response_id] = "held_out"
                continue
            # An answer that was cut off did not end, so its model is not taught that it did.
            ended = recorded.finish_reason == "stop" or (
                config.generate.recorded_eos and recorded.finish_reason != "length"
            )
            with naming(f"response `{recorded.response_id}` of prompt `{recorded.prompt_id}`"):
                tokens = encode_response_text(tokenizer, recorded.text, append_eos=ended, end=end)
            if longest is not None and len(prompt_tokens[recorded.prompt_id]) + len(tokens) > longest:
                dropped[recorded.response_id] = "too_long"
                continue
            own = (recorded.prompt_id, tuple(tokens))
            if not tokens or own in seen:
                dropped[recorded.response_id] = "same_tokens"
                continue
            seen.add(own)
            rows.append(
                Response(
                    response_id=recorded.response_id,
                    prompt_id=recorded.prompt_id,
                    prompt_token_ids=prompt_tokens[recorded.prompt_id],
                    token_ids=tokens,
                    text=recorded.text,
                    finish_reason=recorded.finish_reason,
                    scores=recorded.scores,
                )
            )
    return rows, dropped


def _read_as_held_out(prompts: Sequence[Prompt], tokens: Mapping[str, list[int]]) -> set[str]:
    """The prompts of the pool that the model reads as it reads a held-out one."""
    held_out = {tuple(tokens[prompt.prompt_id]) for prompt in prompts if prompt.split == "eval"}
    return {
        prompt.prompt_id
        for prompt in prompts
        if prompt.split == "train" and tuple(tokens[prompt.prompt_id]) in held_out
    }
