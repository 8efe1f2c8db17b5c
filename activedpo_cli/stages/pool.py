"""Responses made elsewhere: turned into tokens once, stored once, used by every iteration."""

from collections import Counter
from pathlib import Path
from typing import Any

from activedpo_cli.artifacts.files import sha256_of
from activedpo_cli.artifacts.lock import exclusive
from activedpo_cli.artifacts.manifest import Started
from activedpo_cli.artifacts.run import Run
from activedpo_cli.errors import InvalidDataError, RefusedError
from activedpo_cli.records import Prompt, Response
from activedpo_cli.settings import Config
from activedpo_cli.stages.base import Context, environment
from activedpo_cli.stages.policy import load_tokenizer_of, model_location, reference_digest

POOL_VERSION = 1


def file_digest(run: Run, config: Config) -> str:
    """The identity of the responses file: as recorded with the pool, or of the file itself before there is one."""
    manifest = run.pool.manifest
    if manifest and manifest.settings["generate.responses"] == config.generate.responses:
        return manifest.inputs["responses file"]
    assert config.generate.responses is not None
    path = Path(config.generate.responses)
    if not path.is_file():
        raise InvalidDataError(f"the responses file `{path}` does not exist")
    return f"sha256:{sha256_of(path)}"


def check(run: Run, config: Config) -> None:
    """Refuse another file, or another way to read it, than the run's pool was made with."""
    manifest = run.pool.manifest
    digest = file_digest(run, config)
    if manifest is None:
        return
    recorded = {**manifest.settings, "responses file": manifest.inputs["responses file"]}
    wanted = {**_settings(config), "responses file": digest}
    if recorded["responses file"] == digest:
        recorded["generate.responses"] = wanted["generate.responses"]  # the same file under another path
    differences = [f"{key}  {recorded[key]} → {value}" for key, value in wanted.items() if recorded[key] != value]
    if differences:
        raise RefusedError(
            "the run has a pool of responses already, made otherwise",
            details=differences,
            hint="make another run with `activedpo init --run OTHER_NAME …`",
        )


def ensure(context: Context) -> None:
    """Make the pool if it is not there yet."""
    run, config = context.run, context.config
    with exclusive(run.lock_path("pool"), str(run.pool.path)):
        if run.pool.manifest:
            return
        started = Started(
            stage="pool",
            stage_version=POOL_VERSION,
            iteration=0,
            settings=_settings(config),
            inputs={
                "responses file": file_digest(run, config),
                "prompts": run.facts["prompts_digest"],
                "reference": reference_digest(run),
            },
        )
        run.pool.begin(started)
        summary = _fill(context)
        run.pool.finish(started, logs=(), summary=summary, execution={}, environment=environment())


def usable_responses_by_prompt(run: Run) -> Counter[str]:
    """How many responses of the pool each prompt has."""
    return Counter(response.prompt_id for response in run.pool_responses())


def _settings(config: Config) -> dict[str, Any]:
    return {
        "generate.responses": config.generate.responses,
        "generate.recorded_eos": config.generate.recorded_eos,
        "prompts.chat_template": config.prompts.chat_template,
    }


def _fill(context: Context) -> dict[str, Any]:
    from activedpo_cli.generation._recorded import match_to_prompts, read_recorded

    assert context.config.generate.responses is not None
    prompts = context.run.prompts()
    match = match_to_prompts(list(read_recorded(Path(context.config.generate.responses))), prompts)
    responses, too_long = _encode(context, prompts, match.pool)
    kept = {response.response_id for response in responses}
    preferences = [
        preference
        for preference in match.preferences
        if preference.response_a_id in kept and preference.response_b_id in kept
    ]
    context.run.pool.write_rows("responses.jsonl", responses)
    context.run.pool.write_rows("preferences.jsonl", preferences)
    facts = {
        "responses": len(responses),
        "too_long": too_long,
        "prompts_without_responses": match.prompts_without_responses,
        "unmatched_prompts_in_file": match.unmatched,
    }
    context.progress.note(
        f"pool: {len(responses)} responses; left out: {too_long} responses longer than the model's context, "
        f"{match.unmatched} prompts of the file that are not in the run"
    )
    return facts


def _encode(context: Context, prompts: list[Prompt], pool: list[Any]) -> tuple[list[Response], int]:
    from activedpo_cli.models.encoding import encode_prompt, encode_response_text
    from activedpo_cli.models.loading import context_length_at

    config = context.config
    tokenizer = load_tokenizer_of(context.run)
    longest = context_length_at(*model_location(context.run))
    prompt_tokens = {
        prompt.prompt_id: encode_prompt(tokenizer, prompt.prompt, chat_template=config.prompts.chat_template)
        for prompt in prompts
    }
    rows: list[Response] = []
    too_long = 0
    for recorded in pool:
        ended = config.generate.recorded_eos or recorded.finish_reason == "stop"
        tokens = encode_response_text(tokenizer, recorded.text, append_eos=ended)
        if longest is not None and len(prompt_tokens[recorded.prompt_id]) + len(tokens) > longest:
            too_long += 1
            continue
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
    return rows, too_long
