"""What a policy was made with, each fact with the artifact of the run that says so; what no artifact says is left out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import ActiveDPOError, NotReadyError
from activedpo_cli.base.numbers import counted, shown
from activedpo_cli.engine.step import require
from activedpo_cli.store.manifest import Manifest
from activedpo_cli.store.run import SFT, Run

TRAINING = {"train.beta": "β", "train.learning_rate": "learning rate", "train.num_train_epochs": "epochs"}
"""The settings of training that are told, by what they are called."""
OUTCOMES = {"chosen": "with a preferred response", "tie": "tied", "both_bad": "both bad", "skip": "skipped"}
PEOPLE = "people"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One fact.

    Attributes:
        name: What it is about.
        value: The fact in words.
        source: The artifact that says so, as it is called in records: `iter-002/evaluate`.
        digest: What identifies that artifact.

    """

    name: str
    value: str
    source: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a policy comes from.

    Attributes:
        base: The hub's name of the model that it began as, None where it was no model of the hub.
        base_revision: The commit of that.
        datasets: Names on the hub of what its prompts were read from.
        methods: By which methods pairs were chosen, each once.
        facts: Everything that the artifacts say.
        left_out: What an artifact says of another policy or can't be used for, as sentences without an end.

    """

    base: str | None
    base_revision: str | None
    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    facts: tuple[Fact, ...]
    left_out: tuple[str, ...]

    @property
    def digests(self) -> dict[str, str]:
        """What the facts were read from, by the names of inputs."""
        return {fact.source: fact.digest for fact in self.facts}


def origin_of(run: Run, iteration: int) -> Origin:
    """What the records of a run say of its policy after an iteration; 0 is the initial one.

    Raises NotReadyError where the policy itself is missing or stale; an evaluation that is, is left out and said.
    """
    records = [
        (f"iter-{number:03d}/{stage}", record)
        for number in range(1, iteration + 1)
        for stage in ("select", "label", "train")
        if (record := run.stage(stage, number).manifest) is not None
    ]
    evaluation, left_out = _evaluation(run, iteration)
    facts = [*_of_base(run), *_of_sft(run)]
    for source, record in records:
        facts.append(_OF_STAGE[record.stage](record, source))
    facts += _spent(records)
    if evaluation is not None:
        facts += _measured(evaluation, f"iter-{iteration:03d}/evaluate")
    base = run.given_base
    methods = [record.settings.get("select.method") for _, record in records if record.stage == "select"]
    return Origin(
        base=base["hub_id"],
        base_revision=base["revision"],
        datasets=_datasets(run),
        methods=tuple(dict.fromkeys(str(method) for method in methods if method)),
        facts=tuple(facts),
        left_out=left_out,
    )


def facts_of_answers(run: Run, iterations: Sequence[int]) -> list[Fact]:
    """What the records say of the answers of some iterations: about whose responses, how chosen, and by whom."""
    facts = list(_of_base(run))
    for number in iterations:
        for stage in ("select", "label"):
            record = run.stage(stage, number).manifest
            if record is not None:
                facts.append(_OF_STAGE[stage](record, f"iter-{number:03d}/{stage}"))
    return facts


def public_name(name: str) -> str:
    """A name without the folders of whoever gave it; those of the hub and of modules stay as they are."""
    kind, colon, rest = name.partition(":")
    if colon and len(kind) > 1 and kind.replace("-", "").replace("_", "").isalnum():
        return f"{kind}:{public_name(rest)}"
    is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1 or "\\" in name or Path(name).exists()
    return Path(name.replace("\\", "/")).name if is_path else name


def answered_by(record: Manifest) -> str:
    """Who answered in a stage, by its record."""
    oracle = str(record.summary.get("oracle") or record.settings.get("label.oracle") or "")
    return PEOPLE if oracle == "human" else public_name(oracle)


def outcomes_of(record: Manifest) -> str:
    """How the answers of a stage came out, in words."""
    counts = [f"{record.summary[name]} {words}" for name, words in OUTCOMES.items() if record.summary.get(name)]
    return ", ".join(counts) or "no answer"


def _of_base(run: Run) -> Iterator[Fact]:
    base = run.given_base
    name = f"{base['hub_id']} at commit {base['revision']}" if base["hub_id"] else public_name(base["name"])
    where = "" if base["hub_id"] else ", not named by the hub"
    yield Fact(name="base model", value=name + where, source="base", digest=f"sha256:{base['digest']}")


def _of_sft(run: Run) -> Iterator[Fact]:
    record = run.stage(SFT, 0).manifest
    if record is not None:
        summary = record.summary
        weights = "all weights" if summary["weights"] == "all" else summary["weights"]
        value = f"on {counted(summary['examples'], 'example')}, {weights}"
        yield Fact(name="fine-tuned first (SFT)", value=value, source=SFT, digest=record.digest)


def _of_select(record: Manifest, source: str) -> Fact:
    summary = record.summary
    value = (
        f"{summary['selected']:,} of {summary['candidates']:,} candidate pairs by {record.settings['select.method']}"
    )
    return Fact(name=f"iteration {record.iteration}: chosen", value=value, source=source, digest=record.digest)


def _of_label(record: Manifest, source: str) -> Fact:
    value = f"by {answered_by(record)}: {outcomes_of(record)}"
    people, noise = record.summary.get("people"), record.settings.get("label.noise")
    if people:
        value += f"; people answered {people['pairs']} of {people['of']}"
    if noise:
        value += f"; {noise:g} of the preferences were turned around, to try noise"
    if record.settings.get("label.answer", "argmax") != "argmax":
        value += (
            f"; answers were drawn from scores by Bradley–Terry at temperature {record.settings['label.temperature']:g}"
        )
    return Fact(name=f"iteration {record.iteration}: answered", value=value, source=source, digest=record.digest)


def _of_train(record: Manifest, source: str) -> Fact:
    settings, summary = record.settings, record.summary
    preferences = counted(summary["preferences"], "preference")
    so_far = " of all iterations so far" if settings.get("train.labels") == "all" else ""
    parts = [f"DPO on {preferences}{so_far} in {counted(summary['steps'], 'update')}"]
    if settings.get("train.start") == "reference":
        parts.append("begun at the initial model")
    parts += _of_loss(record)
    parts += [f"{name} {settings[key]}" for key, name in TRAINING.items() if key in settings]
    if "adapter.r" in settings:
        kind = "rank-stabilised LoRA" if settings.get("adapter.use_rslora") else "LoRA"
        parts.append(f"{kind} of rank {settings['adapter.r']}, alpha {settings['adapter.lora_alpha']:g}")
    if settings.get("model.quantization", "none") != "none":
        parts.append(f"on a base in {settings['model.quantization']}")
    return Fact(
        name=f"iteration {record.iteration}: trained", value=", ".join(parts), source=source, digest=record.digest
    )


def _of_loss(record: Manifest) -> Iterator[str]:
    """The loss, where it is not DPO's own, with the share of labels that it takes for wrong."""
    loss = record.settings.get("train.loss_type", "sigmoid")
    if loss == "sigmoid":
        return
    share = record.summary.get("wrong_answers", {}).get("share", record.settings.get("train.label_smoothing"))
    yield f"loss {loss}" + (f" with {share:g} of the labels taken for wrong" if loss in ("robust", "cdpo") else "")


_OF_STAGE = {"select": _of_select, "label": _of_label, "train": _of_train}


def _spent(records: list[tuple[str, Manifest]]) -> Iterator[Fact]:
    labels = [(source, record) for source, record in records if record.stage == "label"]
    if labels:
        source, last = labels[-1]
        total = sum(int(record.summary["labels_spent"]) for _, record in labels)
        yield Fact(name="labels spent in all", value=f"{total:,}", source=source, digest=last.digest)


def _evaluation(run: Run, iteration: int) -> tuple[Manifest | None, tuple[str, ...]]:
    """The record of the evaluation of this very policy, or why there is none to read."""
    if iteration == 0:
        return None, ()
    try:
        require(run, "evaluate", iteration)
    except NotReadyError as error:
        return None, (f"{error.message}, so the card says no reward, win rate or KL; {error.hint}",)
    return run.stage("evaluate", iteration).manifest, ()


def _measured(record: Manifest, source: str) -> Iterator[Fact]:
    summary = record.summary
    for name, value in _measures(summary):
        yield Fact(name=name, value=value, source=source, digest=record.digest)


def _measures(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prompts = f"over {counted(summary['n'], 'held-out prompt')}"
    for prefix, role in (("", "scorer"), ("second_", "second_scorer")):
        if summary.get(f"{prefix}reward_mean") is not None:
            scorer = f"{public_name(str(summary[role]))}, {prompts}"
            before = shown(summary[f"{prefix}reward_mean_initial"])
            mean = _with_interval(summary, f"{prefix}reward_mean", f"{prefix}reward_ci")
            yield f"reward by {scorer}", f"{mean}; the initial model {before}"
            wins = _with_interval(summary, f"{prefix}win_rate", f"{prefix}win_rate_ci")
            yield f"win rate against the initial model by {scorer}", wins
    if summary.get("kl_to_reference") is not None:
        yield "KL to the initial model", f"{_with_interval(summary, 'kl_to_reference', 'kl_ci')} nats per response"
    if summary.get("preference_accuracy") is not None:
        value = _with_interval(summary, "preference_accuracy", "preference_accuracy_ci")
        yield f"accuracy on {counted(summary['preference_pairs'], 'held-out preference')}", value


def _with_interval(summary: Mapping[str, Any], name: str, ends: str) -> str:
    low, high = summary.get(f"{ends}_low"), summary.get(f"{ends}_high")
    value = shown(summary[name])
    return value if low is None or high is None else f"{value} (95 % interval {shown(low)} to {shown(high)})"


def _datasets(run: Run) -> tuple[str, ...]:
    """The data set of the hub that the prompts came from; none where they came from a file or from this package."""
    source = run.config.prompts.source
    if run.facts["prompts_source_digest"] is not None:
        return ()
    with suppress(ActiveDPOError):
        named = getattr(discovery.load("prompts", source), "DATASET", None)
        return (named,) if named else ()
    return (source,) if source.count("/") == 1 and not Path(source).exists() else ()
