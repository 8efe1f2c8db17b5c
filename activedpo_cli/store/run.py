"""`Run`: the folder of a run, the folders of its stages and parts in it, and its records."""

import difflib
import os
import re
import shlex
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from activedpo_cli.base.config import CONFIG_NAME, as_spelled, parse_config, with_changes
from activedpo_cli.base.errors import InvalidDataError, NotReadyError, UsageError
from activedpo_cli.base.looking_once import once
from activedpo_cli.base.records import GivenPair, Prompt, RecordedPreference, Response
from activedpo_cli.base.regular_files import read_limited
from activedpo_cli.base.settings import Config
from activedpo_cli.base.yaml_text import changed_yaml
from activedpo_cli.store import files, jsonl
from activedpo_cli.store.links import refuse_links
from activedpo_cli.store.lock import waiting
from activedpo_cli.store.run_record import SFT_BASE_NAME, read_base, read_facts
from activedpo_cli.store.stage_folder import StageFolder

SFT = "sft"
"""The name of stage 0, which belongs to no iteration."""
STAGES = ("generate", "featurize", "select", "label", "train", "evaluate")
LARGEST_CONFIG = 2**24
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ITERATION = re.compile(r"iter-(\d{3,})")


def run_path(name_or_path: str | None) -> Path:
    """The folder meant by `--run`: a path as it is, a bare name under `runs/`."""
    text = name_or_path or os.environ.get("ACTIVEDPO_RUN") or "runs/default"
    path = Path(text)
    if text.startswith(f".{os.sep}"):
        path = path.absolute()  # written without its dot, as in a command to go on with, it would be a name
    elif len(path.parts) == 1 and not path.is_absolute() and text not in (".", ".."):
        path = Path("runs") / path
    if not path.name:  # the working directory
        path = path.absolute()
    if not _RUN_NAME.fullmatch(path.absolute().name):
        raise UsageError(
            f"`{text}` is not a name for a run", hint="use letters, digits, dots, hyphens and underscores, at most 64"
        )
    return path


def _nearest_run(path: Path) -> str:
    """` — did you mean …?` with the run beside it whose name is nearest; empty without any."""
    beside = [record.parent.name for record in path.parent.glob("*/run.json")]
    close = difflib.get_close_matches(path.name, beside, n=1)
    return f" — did you mean `{path.with_name(close[0])}`?" if close else ""


class Run:
    """A run that exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pool_responses: list[Response] | None = None
        self._stages: dict[tuple[str, int], StageFolder] = {}
        self.digests: dict[str, str] = {}
        self.response_inputs: dict[int, dict[str, str]] = {}
        self.label_inputs: dict[str, str] = {}
        self.label_input_counts: list[int] = []

    def forget_digests(self) -> None:
        """Look at finished stages anew; digests are remembered only while one stage is checked."""
        self.digests.clear()
        self.response_inputs.clear()
        self.label_inputs.clear()
        self.label_input_counts.clear()

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in a folder; raises NotReadyError when there is none, InvalidDataError where a link leads out of it."""
        if not (path / "run.json").is_file():
            if any(path.glob("iter-*")):
                raise InvalidDataError(
                    f"`{path / 'run.json'}` is gone, and what else is in `{path}` is a run's",
                    hint="put a copy of it back, or of `run.json` of a run made with the same command from the same files; "
                    "leave the folder as it is until then",
                )
            raise NotReadyError(
                f"there is no run in `{path}`{_nearest_run(path)}",
                hint=f"make one with `activedpo init --run {shlex.quote(str(path))} --model MODEL --prompts FILE`",
            )
        refuse_links(path)
        return cls(path)

    @property
    def config(self) -> Config:
        """The settings in `config.yaml`, checked."""
        return once(("config", self.path), self._read_config)

    def _read_config(self) -> Config:
        try:
            return parse_config(self.config_text)
        except UsageError as error:
            raise UsageError(
                f"`{self.path / CONFIG_NAME}`: {error.message}", details=error.details, hint=error.hint
            ) from error

    @property
    def config_text(self) -> str:
        """`config.yaml` as it stands."""
        try:
            return read_limited(self.path / CONFIG_NAME, LARGEST_CONFIG).decode("utf-8")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            raise InvalidDataError(f"`{self.path / CONFIG_NAME}` can't be read: {error}") from error

    def change_config(self, changes: dict[str, Any]) -> tuple[str, str]:
        """Write settings into `config.yaml`, keeping its comments, and return its text before and after.

        Nothing is written when nothing differs.
        """
        if not changes or with_changes(self.config, changes) == self.config:
            return self.config_text, self.config_text
        with waiting(self.lock_path("config")):  # two stages at once must not lose each other's settings
            before = self.config_text
            after = changed_yaml(before, as_spelled(before, changes))
            self.write_config(after)
        return before, after

    def restore_config(self, changed: str, before: str) -> None:
        """Put `config.yaml` back to what it was before a change of this process, unless others have changed it since."""
        with waiting(self.lock_path("config")):
            if self.config_text == changed:
                self.write_config(before)

    def write_config(self, text: str) -> None:
        """Replace `config.yaml` as a whole."""
        files.write_bytes(self.path / CONFIG_NAME, text.encode())

    @property
    def facts(self) -> dict[str, Any]:
        """`run.json`: when, by which version and command the run was made, and the digests of what it was made from."""
        return once(("facts", self.path), lambda: read_facts(self.path))

    @property
    def base(self) -> dict[str, Any]:
        """Which weights π_ref is: those that *sft* made, else those that the run was made with."""
        return once(("reference", self.path), self._read_base)

    def _read_base(self) -> dict[str, Any]:
        return read_base(self.path, SFT_BASE_NAME) if self.stage(SFT, 0).manifest else self.given_base

    @property
    def given_base(self) -> dict[str, Any]:
        """`reference/base.json`: the weights that the run was made with."""
        return read_base(self.path)

    def policy_bytes(self, inputs: Mapping[str, str]) -> int | None:
        """The size of the weights that a stage with these inputs runs; None where it runs none, or a model of the hub."""
        base = self.given_base if "base" in inputs else self.base if "reference" in inputs else None
        files = base["files"] if base else {}
        return sum(entry["bytes"] for name, entry in files.items() if name.endswith(".safetensors")) or None

    def prompts(self, split: str | None = None) -> list[Prompt]:
        """The prompts of the run, of one split or of both."""
        rows = jsonl.read_rows(self.path / "prompts.jsonl", Prompt)
        return [row for row in rows if split in (None, row.split)]

    def stage(self, name: str, iteration: int) -> StageFolder:
        """The folder of a stage of an iteration; *sft* belongs to none, and stands in `reference/`."""
        if (name, iteration) not in self._stages:
            self._stages[name, iteration] = StageFolder(self._home(name, iteration) / name)
        return self._stages[name, iteration]

    def redone_stage(self, name: str, iteration: int) -> StageFolder:
        """Where `--force` makes a stage again, beside the old one."""
        return StageFolder(self._home(name, iteration) / f".{name}.redo")

    def is_being_redone(self, name: str, iteration: int) -> bool:
        """Whether `--force` has begun to make a stage again, which is not finished."""
        home = 0 if name == SFT else iteration
        return f".{name}.redo" in once(("names", self.path, home), lambda: self._names_of(name, iteration))

    def _names_of(self, name: str, iteration: int) -> frozenset[str]:
        try:
            return frozenset(os.listdir(self._home(name, iteration)))
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()

    def _home(self, name: str, iteration: int) -> Path:
        return self.path / "reference" if name == SFT else self.iteration_path(iteration)

    def iteration_path(self, iteration: int) -> Path:
        """The folder of an iteration; they count from 1."""
        return self.path / f"iter-{iteration:03d}"

    def iterations(self) -> list[int]:
        """The iterations that have a folder, in order."""
        found = (_ITERATION.fullmatch(path.name) for path in self.path.glob("iter-*") if path.is_dir())
        return sorted(int(match[1]) for match in found if match)

    @property
    def pool(self) -> StageFolder:
        """Responses made elsewhere, stored once for all iterations."""
        return StageFolder(self.path / "pool")

    @property
    def initial_evaluation(self) -> StageFolder:
        """The evaluation of π_SFT, which every iteration is compared with."""
        return StageFolder(self.path / "reference" / "evaluate")

    @property
    def initial_adapter(self) -> StageFolder:
        """The seeded adapter with B = 0 from which the first iteration starts."""
        return StageFolder(self.path / "reference" / "initial-adapter")

    @property
    def stale(self) -> Path:
        """Where results go that `--force` replaced."""
        return self.path / ".stale"

    def lock_path(self, name: str) -> Path:
        """The lock file of a stage."""
        return self.path / ".locks" / f"{name}.lock"

    def adapter_path(self, iteration: int) -> Path:
        """The adapter of θ at the end of an iteration; of iteration 0, the initial one."""
        folder = self.initial_adapter.path if iteration == 0 else self.stage("train", iteration).path
        return folder / "adapter"

    def drawn_prompts(self, iteration: int) -> dict[str, Any]:
        """`generate/prompts.json`: the prompts of an iteration and where its responses come from."""
        return self.stage("generate", iteration).read_object("prompts.json", "source", "prompt_ids")

    def responses(self, iteration: int) -> list[Response]:
        """The responses of an iteration in the order of its prompts, sampled or from the pool."""
        drawn = self.drawn_prompts(iteration)
        if drawn["source"] == "pool":
            wanted = {name: place for place, name in enumerate(drawn["prompt_ids"])}
            rows = [row for row in self.pool_responses() if row.prompt_id in wanted]
            return sorted(rows, key=lambda row: wanted[row.prompt_id])
        folder = self.stage("generate", iteration)
        record = folder.manifest  # it lists those too that are gone
        names = sorted(record.outputs) if record else folder.names("responses-*.jsonl")
        return [
            row for name in names if fnmatchcase(name, "responses-*.jsonl") for row in folder.read_rows(name, Response)
        ]

    def pool_responses(self) -> list[Response]:
        """All responses that were made elsewhere; read once, since a finished pool never changes."""
        if self._pool_responses is None:
            self._pool_responses = self.pool.read_rows("responses.jsonl", Response)
        return self._pool_responses

    def pool_preferences(self) -> list[RecordedPreference]:
        """Preferences that came with the pool."""
        return self.pool.read_rows("preferences.jsonl", RecordedPreference) if self.pool.manifest else []

    def given_pairs(self) -> list[GivenPair]:
        """The pairs that the pool was given as such, each once, where it was made with `recorded_pairs: given`."""
        return self.pool.read_rows("pairs.jsonl", GivenPair)

    def next_command(self, stage: str, iteration: int) -> str:
        """The command that does a stage, as it can be pasted."""
        which = "" if stage == SFT else f" --iteration {iteration}"
        return f"activedpo {stage} --run {shlex.quote(str(self.path))}{which}"

    def has_begun(self) -> bool:
        """Whether anything was made, or begun, with π_ref, which *sft* can then no longer change."""
        folders = (self.pool, self.initial_adapter, self.initial_evaluation)
        return bool(self.iterations()) or any(folder.path.exists() for folder in folders)
