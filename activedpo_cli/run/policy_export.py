"""`activedpo export` without a format: a policy of a run as a folder that other programs load, with a card.

The folder appears as a whole, after the libraries that will read it have read it and have given the log-probabilities of the
run's own policy.
"""

import gc
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.config import prompt_rendering
from activedpo_cli.base.errors import BusyError, InvalidDataError, NotReadyError, RefusedError, UsageError
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.base.progress import Progress
from activedpo_cli.base.records import Response
from activedpo_cli.base.settings import Config
from activedpo_cli.engine.intact import check_intact
from activedpo_cli.engine.step import Execution, environment, require
from activedpo_cli.exporters import _hub
from activedpo_cli.label.scoring import logps_of
from activedpo_cli.policy.policy import load_base, load_reference, model_location, reference_digest
from activedpo_cli.run.cards import CARD, model_card
from activedpo_cli.run.command import load_stage
from activedpo_cli.run.exported_folder import EXPORT, VERSION, checked_place, put, standing_at
from activedpo_cli.run.policy_facts import Origin, origin_of, public_name
from activedpo_cli.run.records import finished_iterations
from activedpo_cli.store import files
from activedpo_cli.store.lock import exclusive
from activedpo_cli.store.manifest import MANIFEST_NAME, Manifest, Started
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from activedpo_cli.models.shipping import Form, Usage

TEXTS = 8
"""How many texts the check compares."""
NOTICED_SHARE = 0.25
"""From which share of what training has changed the rounding of merged weights is told."""
MERGING_ERRORS = (NotImplementedError, AttributeError, RuntimeError, ValueError, TypeError)
GENERATION_CONFIG = "generation_config.json"
READERS = {"adapter": "PEFT", "merged": "transformers"}


@dataclass(frozen=True, kw_only=True)
class PolicyRequest:
    """The command as it was typed.

    Attributes:
        output: Where it goes; in the run without it.
        iteration: Whose policy, 0 for the initial one; without it that of the last one trained.
        form: The adapter alone, or whole weights.
        base: What the adapter is to name as its base; as the run names it without it.
        push: The repository on the hub to make of it.
        public: Whether that may be seen by others.
        force: Whether what stands in its place gives way.

    """

    form: "Form" = "adapter"
    output: Path | None = None
    iteration: int | None = None
    base: str | None = None
    push: str | None = None
    public: bool = False
    force: bool = False


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """An exported policy.

    Attributes:
        folder: Where it is.
        iteration: After which iteration it was the policy.
        form: The adapter alone, or whole weights.
        was_there: Whether it was there already.
        check: What the check compared, as `manifest.json` says it.
        notes: What the person should know, in sentences without an end.
        usage: How it is served and loaded.
        pushed: Where it is on the hub, None where nothing was pushed.

    """

    folder: Path
    iteration: int
    form: "Form"
    was_there: bool
    check: dict[str, Any]
    notes: Sequence[str]
    usage: "Usage"
    pushed: _hub.Pushed | None


def export_policy(run: Run, request: PolicyRequest, execution: Execution, progress: Progress) -> PolicyResult:
    """Write a policy with its tokenizer, chat template, generation config and card to a folder, and push it where asked.

    Raises:
        UsageError: The options do not go together, or the folder can't be one.
        NotReadyError: The policy is not trained, or stale.
        RefusedError: What stands in its place is not what would be written, or the repository is public.
        InvalidDataError: The adapter was changed, can't be merged, or what was written computes something else.
        BusyError: Another process writes there.
        ActiveDPOError: The hub did not take it.

    """
    export = _Export(run, request, execution, progress)
    if request.push is not None:
        _hub.check_name(request.push, "model")
    place = checked_place(run, request.output, f"iter-{export.iteration:03d}-{request.form}")
    notes = list(export.origin.left_out)
    with exclusive(place.parent / ".locks" / f"{place.name}.lock", str(place)):
        standing = standing_at(place, export.wanted, export.command(), force=request.force)
        if standing.record is None:
            aside = put(place, export.fill, keep=standing.is_kept)
            notes += [f"what stood there was kept as `{aside}`"] if aside else []
            notes += [f"made again: {line}" for line in standing.differences]
        record = StageFolder(place).manifest
    assert record is not None
    pushed = _push(place, record, request)
    usage = export.usage(place, str(record.summary["number_format"]), request.push)
    notes += [*export.notes(record.summary), *([usage.warning] if usage.warning else [])]
    if pushed is not None and request.public and pushed.is_private:
        notes.append(f"{request.push} was private before, and stays so until it is made public on the hub")
    return PolicyResult(
        folder=place,
        iteration=export.iteration,
        form=request.form,
        was_there=standing.record is not None,
        check=record.summary,
        notes=notes,
        usage=usage,
        pushed=pushed,
    )


class _Export:
    """What one export writes."""

    def __init__(self, run: Run, request: PolicyRequest, execution: Execution, progress: Progress) -> None:
        self.run, self.request, self.execution, self.progress = run, request, execution, progress
        self.iteration = _last_trained(run) if request.iteration is None else request.iteration
        digests = {"reference": reference_digest(run)}
        self._train = f"iter-{self.iteration:03d}/train"
        if self.iteration:
            digests[self._train] = require(run, "train", self.iteration)
            check_intact(run, run.stage("train", self.iteration))
        self.config = self._settings()
        self._check_options()
        self.origin: Origin = origin_of(run, self.iteration)
        self.base_name, self.base_revision, self._is_found_elsewhere = self._base()
        self._check_push()
        settings = {"form": request.form} | ({"base": self.base_name} if request.form == "adapter" else {})
        self.wanted = Started(
            stage=EXPORT,
            stage_version=VERSION,
            iteration=self.iteration,
            settings=settings,
            inputs=self.origin.digests | digests,
        )

    def command(self) -> str:
        """The command that does this again."""
        request = self.request
        words = ["activedpo", "export", "--run", str(self.run.path), "--iteration", str(self.iteration)]
        words += ["--merged"] if request.form == "merged" else []
        words += ["--output", str(request.output)] if request.output else []
        words += ["--base", request.base] if request.base else []
        return shlex.join(words)

    def fill(self, folder: Path) -> None:
        """Write everything into a folder that nobody sees yet, and read it back.

        Raises InvalidDataError where what was written is not what the run's policy is, and BusyError where that is another
        one by now.
        """
        write = self._write_merged if self.request.form == "merged" else self._write_adapter
        number_format, check = write(folder)
        trained = self.run.stage("train", self.iteration).manifest if self.iteration else None
        if self.iteration and (trained is None or trained.digest != self.wanted.inputs[self._train]):
            raise BusyError(
                f"`{self._train}` was made again while its policy was exported",
                hint=f"the same again: {self.command()}",
            )
        number_format = number_format.removeprefix("torch.")
        files.write_bytes(folder / CARD, self._card(folder, number_format).encode())
        summary = check | {"number_format": number_format}
        StageFolder(folder).finish(self.wanted, logs=(), summary=summary, execution={}, environment=environment())

    def usage(self, place: Path, number_format: str, pushed: str | None = None) -> "Usage":
        """How it is served and loaded, from the hub where it went there."""
        return self._usage(pushed or str(place), self._adapter_settings(place), number_format)

    def notes(self, check: dict[str, Any]) -> list[str]:
        """What the person should know of any such export, of which the check found this."""
        off, moved = check["mean_difference"], check.get("moved_by_training")
        if moved is not None and off > NOTICED_SHARE * moved:
            return [
                f"rounding the weights to {check['number_format']} moves log π by {off:.2g} nats a token in the mean, and "
                f"training moved it by {moved:.2g}: the adapter, without --merged, loses nothing"
            ]
        if self.request.form == "merged" or self._is_found_elsewhere:
            return []
        return [
            f"the adapter names `{self.base_name}` as its base, which is on this machine alone: elsewhere whole weights "
            "(--merged) are of use, or the adapter where the base is on the hub too (--base ORG/NAME)"
        ]

    def _settings(self) -> Config:
        """Those that the policy was trained with, whatever `config.yaml` says today."""
        record = self.run.stage("train", self.iteration).manifest if self.iteration else None
        return self.run.config if record is None else load_stage("train").seen(self.run, record, {})

    def _check_options(self) -> None:
        request, run = self.request, self.run
        if request.base is not None and request.form == "merged":
            raise UsageError("--base is what an adapter names, and --merged writes whole weights", hint="leave one out")
        if request.base is not None:
            _hub.check_name(request.base, "model", "--base")
        if request.public and request.push is None:
            raise UsageError("--public is for what goes to the hub", hint="--push ORG/NAME --public")
        if self.iteration == 0 and request.form == "adapter":
            raise UsageError(
                "the initial policy is the initial model, to which its adapter adds nothing",
                hint=f"{self.command()} --merged",
            )
        if self.iteration == 0 and run.base["hub_id"]:
            raise UsageError(
                f"the initial policy is {run.base['hub_id']} of the hub as it is, and there is nothing to export",
                hint="--iteration 1 for the first policy that was trained",
            )
        quantization = self.config.model.quantization
        if request.form == "merged" and quantization != "none":
            raise _quantized(f"in {quantization}")

    def _base(self) -> tuple[str, str | None, bool]:
        """What an adapter names as its base, the commit of it, and whether others find it by that."""
        base = self.run.base
        if self.request.base is not None:
            return self.request.base, None, True
        if base["hub_id"]:
            return base["hub_id"], base["revision"], True
        path = self.run.path.resolve() / base["path"] if base["stored_in_run"] else Path(base["path"])
        return str(path), None, False

    def _check_push(self) -> None:
        if self.request.push is None or self.request.form == "merged" or self._is_found_elsewhere:
            return
        raise UsageError(
            f"the adapter's base is `{self.base_name}`, a folder of this machine, by which nobody finds it on the hub",
            hint="push the whole weights with --merged; or push the base, with --iteration 0 --merged, and name it: "
            "--base ORG/NAME",
        )

    def _write_adapter(self, folder: Path) -> tuple[str, dict[str, Any]]:
        from activedpo_cli.models import shipping
        from activedpo_cli.models.adapters import attach_adapter

        source = self.run.adapter_path(self.iteration)
        base = load_reference(self.run, self.config, self.execution)
        policy = attach_adapter(base.model, source, trainable=False)
        texts = self._texts(base.tokenizer)
        own = self._logps(policy, base.tokenizer, texts)
        files.copy_folder(source, folder)
        settings = shipping.adapter_settings_for(folder, self.base_name, self.base_revision)
        files.write_bytes(folder / shipping.CONFIG_FILE, settings)
        files.write_bytes(folder / GENERATION_CONFIG, shipping.generation_settings(*model_location(self.run)))
        bare: Any = policy.unload()
        if hasattr(bare, "peft_config"):
            del bare.peft_config
        try:
            theirs: Any = shipping.attach_as_others_do(bare, folder)
        except ValueError as error:
            raise _not_the_same(str(error)) from error
        return str(bare.dtype), self._compared(folder, theirs, texts, own)

    def _write_merged(self, folder: Path) -> tuple[str, dict[str, Any]]:
        from activedpo_cli.models.adapters import attach_adapter
        from activedpo_cli.models.merging import merge_in_float32, write_full_weights
        from activedpo_cli.models.quantization import is_quantized

        base = load_reference(self.run, self.config, self.execution)
        tokenizer, number_format = base.tokenizer, str(base.model.dtype)
        if is_quantized(base.model):
            raise _quantized("whose checkpoint holds codes")
        texts = self._texts(tokenizer)
        if self.iteration == 0:
            own = self._logps(base.model, tokenizer, texts)
            write_full_weights(base.model, tokenizer, folder)
        else:
            policy = attach_adapter(base.model, self.run.adapter_path(self.iteration), trainable=False)
            own = self._logps(policy, tokenizer, texts)
            with policy.disable_adapter():
                moved = _apart(own, self._logps(policy, tokenizer, texts), texts)
            try:
                merge_in_float32(policy)
                write_full_weights(policy, tokenizer, folder)
            except MERGING_ERRORS as error:
                if is_out_of_memory(error):
                    raise
                raise InvalidDataError(
                    "this adapter can't be merged into its base",
                    details=[line for line in str(error).splitlines() if line.strip()][:3],
                    hint="export the adapter, without --merged",
                ) from error
            del policy
        del base
        gc.collect()  # two copies of the weights need not fit into memory
        read = load_base((str(folder), None), self.config, self.execution)
        check = self._compared(folder, read.model, texts, own)
        return number_format, check | ({"moved_by_training": fmean(moved)} if self.iteration else {})

    def _logps(self, policy: Any, tokenizer: "PreTrainedTokenizerBase", texts: list[Response]) -> list[float]:
        return logps_of(policy, tokenizer, texts, "log π of texts", self.progress)

    def _compared(
        self, folder: Path, read: "PreTrainedModel | PeftModel", texts: list[Response], own: list[float]
    ) -> dict[str, Any]:
        """What `manifest.json` says of the check; raises InvalidDataError where it fails.

        The mean over texts decides: in half precision a mixture's router may send a single token elsewhere.
        """
        from activedpo_cli.models.loading import load_tokenizer
        from activedpo_cli.models.shipping import tolerance_of

        tokenizer = load_tokenizer(str(folder))
        self._check_tokens(tokenizer)
        found = self._logps(read, tokenizer, texts)
        tolerance = tolerance_of(self.request.form, str(read.dtype))
        each = _apart(own, found, texts)
        if not fmean(each) <= tolerance:
            raise _not_the_same(
                f"a token's log-probability is off by {fmean(each):.2g} nats in the mean, and rounding makes at most "
                f"{tolerance:g}"
            )
        return {
            "texts": len(texts),
            "tokens": sum(len(text.token_ids) for text in texts),
            "mean_difference": fmean(each),
            "worst_difference": max(each),
            "tolerance": tolerance,
        }

    def _check_tokens(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """Raise InvalidDataError where prompts become other tokens than the run made of them, as by a lost template."""
        from activedpo_cli.models.encoding import encode_prompt
        from activedpo_cli.models.loading import load_tokenizer

        rendering, ours = prompt_rendering(self.run.config), load_tokenizer(*model_location(self.run))
        for prompt in self.run.prompts()[:TEXTS]:
            expected = encode_prompt(ours, prompt.prompt, **rendering)
            if encode_prompt(tokenizer, prompt.prompt, **rendering) != expected:
                raise _not_the_same(f"prompt `{prompt.prompt_id}` becomes other tokens")

    def _texts(self, tokenizer: "PreTrainedTokenizerBase") -> list[Response]:
        """Some responses of the iteration; where these are gone, prompts, of which the first half is given."""
        from activedpo_cli.models.encoding import encode_prompt

        number = max(self.iteration, 1)
        if self.run.stage("generate", number).manifest is not None:
            rows = [row for row in self.run.responses(number) if row.token_ids]
            if rows:
                return rows[:: -(-len(rows) // TEXTS)]
        texts = []
        for prompt in self.run.prompts()[:TEXTS]:
            tokens = encode_prompt(tokenizer, prompt.prompt, **prompt_rendering(self.run.config))
            half = max(len(tokens) // 2, 1)
            texts.append(
                Response(
                    response_id=prompt.prompt_id,
                    prompt_id=prompt.prompt_id,
                    prompt_token_ids=tokens[:half],
                    token_ids=tokens[half:],
                    text="",
                    finish_reason="recorded",
                )
            )
        return [text for text in texts if text.token_ids]

    def _card(self, folder: Path, number_format: str) -> str:
        settings = self._adapter_settings(folder)
        lacks_base = self.request.form == "adapter" and not self._is_found_elsewhere
        return model_card(
            self.origin,
            form=self.request.form,
            is_initial=self.iteration == 0,
            base_in_adapter=public_name(self.base_name) if lacks_base else None,
            number_format=number_format,
            usage=self._usage(
                "THIS-FOLDER-OR-ORG/NAME",
                settings | ({"base_model_name_or_path": "FOLDER-OF-ITS-BASE"} if lacks_base else {}),
                number_format,
            ).python,
        )

    def _usage(self, name: str, settings: dict[str, Any], number_format: str) -> "Usage":
        from activedpo_cli.models.shipping import usage_of

        return usage_of(self.request.form, name, settings, number_format, self.config.model.quantization)

    def _adapter_settings(self, folder: Path) -> dict[str, Any]:
        from activedpo_cli.models.shipping import CONFIG_FILE

        return json.loads((folder / CONFIG_FILE).read_bytes()) if self.request.form == "adapter" else {}


def _apart(some: list[float], others: list[float], texts: list[Response]) -> list[float]:
    """How far log-probabilities of texts lie apart, in nats a token."""
    return [abs(a - b) / len(text.token_ids) for a, b, text in zip(some, others, texts, strict=True)]


def _last_trained(run: Run) -> int:
    try:
        return finished_iterations(run, "train")[-1]
    except NotReadyError as error:
        hint = f"{error.hint}; or --iteration 0 --merged for the initial model"
        raise NotReadyError(error.message, hint=hint) from None


def _push(place: Path, record: Manifest, request: PolicyRequest) -> _hub.Pushed | None:
    if request.push is None:
        return None
    names = [*record.outputs, MANIFEST_NAME]
    return _hub.push({name: place / name for name in names}, request.push, "model", public=request.public)


def _quantized(how: str) -> RefusedError:
    return RefusedError(
        f"the policy is an adapter on a base {how}, and no whole weights compute what it does",
        details=["an update added to the codes would be rounded away, and the full weights are another base"],
        hint="export the adapter, without --merged: its readers load the base in the same way",
    )


def _not_the_same(reason: str) -> InvalidDataError:
    return InvalidDataError(
        "what was written does not compute what the run's policy computes, and was taken away again",
        details=[reason],
        hint="`activedpo verify` looks for damaged files; another version of transformers or PEFT may read them otherwise",
    )
