"""The cards of what leaves a run: README.md of a policy or of preferences, with the metadata that the hub reads."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from activedpo_cli.base.display import display_text
from activedpo_cli.base.numbers import counted
from activedpo_cli.run.policy_facts import Fact, Origin
from activedpo_cli.store.run import SFT

if TYPE_CHECKING:
    from activedpo_cli.models.shipping import Form

CARD = "README.md"
PAPER = "arxiv:2505.19241"
TAG = "activedpo"
OF_PREFERENCES = (TAG, "preference")
"""Tags by which a card of preferences is known as one of ours."""
MARKUP = str.maketrans({character: f"&#{ord(character)};" for character in "&<>|[]*`\\"})
"""What would be more than text in a cell of a table."""
DIGITS = 23
"""How much of a digest a card shows, with `sha256:`; records have all of it."""
LICENCE = (
    "This card names no licence. Add `license:` to its first lines before you pass {what} on: what the base model's, the "
    "prompts' and the answers' licences allow is for you to know."
)


def model_card(
    origin: Origin, *, form: "Form", is_initial: bool, base_in_adapter: str | None, number_format: str, usage: str
) -> str:
    """The card of a policy.

    Args:
        origin: What it was made with.
        form: Its adapter alone, or whole weights.
        is_initial: Whether it is the initial model, which no preference has trained.
        base_in_adapter: What an adapter names as its base where others can't find that; None where they can.
        number_format: Of the whole weights, such as bfloat16.
        usage: Lines of Python that load it.

    """
    metadata: dict[str, Any] = {}
    if origin.base:
        metadata |= {"base_model": origin.base, "base_model_relation": "adapter" if form == "adapter" else "finetune"}
    metadata["library_name"] = "peft" if form == "adapter" else "transformers"
    metadata["pipeline_tag"] = "text-generation"
    made_by_sft = ["sft"] if any(fact.source == SFT for fact in origin.facts) else []
    kind = made_by_sft if is_initial else ["dpo", "preference-optimization"]
    metadata["tags"] = [TAG, *kind, *(["lora"] if form == "adapter" else []), PAPER]
    if origin.datasets:
        metadata["datasets"] = list(origin.datasets)
    parts = [
        _front_matter(metadata),
        f"# {_title(origin, is_initial)}",
        _what_it_is(form, number_format, is_initial),
        *([_of_local_base(base_in_adapter)] if base_in_adapter else []),
        "## Use",
        f"```python\n{usage}\n```",
        "## What trained it",
        _table(origin.facts),
        "Each line was read from the artifact of the run that it names; `manifest.json` has the digests in full. What no "
        "artifact says is left out.",
        "## Licence",
        LICENCE.format(what="it"),
    ]
    return "\n\n".join(parts) + "\n"


def dataset_card(facts: Sequence[Fact], *, rows: int, columns: Sequence[str], file: str, format_name: str) -> str:
    """The card of preferences, of which `file` has so many rows with these columns, as a trainer reads them."""
    metadata = {
        "task_categories": ["text-generation"],
        "tags": [*OF_PREFERENCES, "dpo", PAPER],
        "configs": [{"config_name": "default", "data_files": file}],
    }
    parts = [
        _front_matter(metadata),
        "# Preferences",
        f"{counted(rows, 'preference')}, one a row, as `{_code(format_name)}` reads them: a prompt, the response that was "
        "preferred and the one that was not. Which pairs were asked about was chosen with "
        "[ActiveDPO](https://arxiv.org/abs/2505.19241)'s toolkit. Ties and skipped pairs are left out.",
        f"Columns: {', '.join(f'`{_code(column)}`' for column in columns)}.",
        "## Where they come from",
        _table(facts),
        "Each line was read from the artifact of the run that it names.",
        "## Licence",
        LICENCE.format(what="them"),
    ]
    return "\n\n".join(parts) + "\n"


def is_dataset_card(text: str) -> bool:
    """Whether a card of preferences was made here, be it that somebody has changed it since."""
    front, found, _ = text.removeprefix("---\n").partition("\n---")
    return text.startswith("---\n") and bool(found) and set(OF_PREFERENCES) <= set(front.replace("- ", "").split())


def _title(origin: Origin, is_initial: bool) -> str:
    if is_initial:
        return "The initial model of a run of activedpo"
    return f"{_cell(origin.base)}, aligned by DPO" if origin.base else "A policy aligned by DPO"


def _what_it_is(form: "Form", number_format: str, is_initial: bool) -> str:
    link = "[ActiveDPO](https://arxiv.org/abs/2505.19241)'s toolkit"
    if is_initial:
        return f"Whole weights in {number_format}: what {link} started from, before any preference was learnt."
    what = (
        "A LoRA adapter in PEFT's format, to be put on its base model."
        if form == "adapter"
        else f"Whole weights in {number_format}: the adapter was merged into its base in float32, and the sum rounded once."
    )
    return f"{what} It was trained by direct preference optimisation on preferences about pairs that {link} chose."


def _of_local_base(name: str) -> str:
    return (
        f"**Its base is not on the hub.** The adapter names `{_code(name)}`, a folder of whoever trained it. To use it "
        "elsewhere you need these weights, and their place as `base_model_name_or_path` in `adapter_config.json`."
    )


def _front_matter(metadata: Mapping[str, Any]) -> str:
    import yaml

    return f"---\n{yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)}---"


def _table(facts: Sequence[Fact]) -> str:
    rows = [f"| {_cell(f.name)} | {_cell(f.value)} | {_cell(f.source)} | `{_code(f.digest[:DIGITS])}` |" for f in facts]
    return "\n".join(["| what | | artifact | digest |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    """A text that stays text in a cell of a table: names come from whoever made the run."""
    return _on_one_line(text).translate(MARKUP)


def _code(text: str) -> str:
    """A text that stays within its backticks."""
    return _on_one_line(text).replace("`", "'")


def _on_one_line(text: str) -> str:
    return " ".join(display_text(text).split())
