"""The models that ship with the package; `activedpo_cli/tiny/assets/MODEL_CARD.md` describes them."""

from pathlib import Path

BUILT_IN_MODEL = "tiny"
"""Name of the language model for `--model`, and of the reward model for `reward-model:NAME`."""

ASSETS = Path(__file__).parent.parent / "tiny" / "assets"
LANGUAGE_MODEL = ASSETS / "language-model"
REWARD_MODEL = ASSETS / "reward-model"


def is_built_in(name: str) -> bool:
    """Whether a name means a built-in model; a model of that name in the working directory goes before it."""
    own = Path(name)
    return name == BUILT_IN_MODEL and not any((own / file).is_file() for file in ("config.json", "adapter_config.json"))
