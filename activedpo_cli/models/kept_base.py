"""Base weights that stay in memory while one process does stage after stage, so that they are loaded once."""

from collections.abc import Callable, Hashable
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel


class KeptBase:
    """Holds the base of the last stage; its adapter is taken off before the next stage gets the base."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._model: PreTrainedModel | None = None
        self._policy: PeftModel | None = None

    def model(self, key: Hashable, load: Callable[[], PreTrainedModel]) -> PreTrainedModel:
        """The base as `load` gives it; `key` says what it is, and another key replaces it."""
        self._take_adapter_off()
        if self._model is None or key != self._key:
            self._model = None  # never two in memory
            self._model, self._key = load(), key
        return self._model

    def attached(self, policy: PeftModel) -> None:
        """Remember what was built on the base, to undo it."""
        self._policy = policy

    def forget(self) -> None:
        """Load anew next time: an adapter may be half attached."""
        self._model = self._policy = None

    def _take_adapter_off(self) -> None:
        if self._policy is None:
            return
        base: Any = self._policy.unload()
        if hasattr(base, "peft_config"):
            del base.peft_config
        self._policy = None
