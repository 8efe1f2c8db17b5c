"""What an experiment compares: a YAML file with settings for all runs, the arms that differ, and the seeds."""

import itertools
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from activedpo_cli.base.config import EXCERPTS, check_values
from activedpo_cli.base.errors import InvalidDataError, UsageError
from activedpo_cli.base.nearest import did_you_mean
from activedpo_cli.base.settings import SECTIONS, PositiveInt, current_key
from activedpo_cli.base.suggestions import called_settings
from activedpo_cli.base.yaml_text import read_yaml

BUILT_IN = Path(__file__).parent / "specs"
SFT_MODEL = "/reference/sft/model"
MOST_RUNS = 100_000
"""Beyond this a range or a grid was mistyped; its runs alone would fill the memory."""
_RANGE = re.compile(r"(\d+)-(\d+)")
_ARM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,47}")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class ExperimentSpec(BaseModel):
    """An experiment as it was written down.

    Attributes:
        title: What it is, in a few words.
        question: What it asks, in a sentence or two.
        preset: Settings that all runs begin with; null takes what `activedpo run` would take.
        settings: Settings of all runs, with dotted keys; `${NAME}` stands for an environment variable.
        arms: What is compared: a name, and the settings in which it differs.
        grid: Dotted settings with several values each; every arm is run with every combination.
        seeds: Seeds of the runs, as a list or a range such as `0-9`.
        iterations: Iterations of each run.
        baseline: The arm that the others are compared with.
        ceiling: An arm that reads the answers: how far from the baseline to it an arm gets is reported.
        keep_features: Keep the gradient features of finished runs, which take nearly all of the space.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    question: str = ""
    preset: str | None = None
    settings: dict[str, Any] = {}
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    grid: dict[str, list[Any]] = {}
    seeds: list[int] = Field(min_length=1)
    iterations: PositiveInt = 5
    baseline: str | None = None
    ceiling: str | None = None
    keep_features: bool = False

    @field_validator("arms", mode="before")
    @classmethod
    def _from_names(cls, value: Any) -> Any:
        """A list of methods is short for arms of that name."""
        if isinstance(value, list) and all(isinstance(name, str) for name in value):
            return {name: {"select.method": name} for name in value}
        if isinstance(value, dict):
            return {name: settings or {} for name, settings in value.items()}
        return value

    @field_validator("settings", "grid")
    @classmethod
    def _as_spelled_now(cls, settings: dict[str, Any]) -> dict[str, Any]:
        return {current_key(key): value for key, value in settings.items()}

    @field_validator("arms")
    @classmethod
    def _arms_as_spelled_now(cls, arms: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {name: cls._as_spelled_now(settings) for name, settings in arms.items()}

    @field_validator("seeds", mode="before")
    @classmethod
    def _from_ranges(cls, value: Any) -> Any:
        return parse_seeds(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "ExperimentSpec":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice in seeds")
        for name in self.arms:
            if not _ARM_NAME.fullmatch(name):
                raise ValueError(f"`{name}` can't name an arm: letters, digits and . _ = + - only, at most 48")
        for role in ("baseline", "ceiling"):
            name = getattr(self, role)
            if name is not None and name not in self.arms:
                raise ValueError(f"{role} `{name}` is none of the arms: {', '.join(self.arms)}")
        points = math.prod(map(len, self.grid.values()))
        if len(self.arms) * points * len(self.seeds) > MOST_RUNS:
            raise ValueError(f"arms, grid and seeds are more than {MOST_RUNS} runs")
        for key, values in self.grid.items():
            if not values:
                raise ValueError(f"`{key}` has no values in grid")
            names = [short_value(value) for value in values]
            if len(set(names)) < len(names):
                raise ValueError(f"two values of `{key}` in grid would be called alike: {', '.join(names)}")
        for place in (self.settings, self.grid, *self.arms.values()):
            if "seed" in place:
                raise ValueError("`seed` is set by seeds")
        return self


def parse_seeds(text: str) -> list[int]:
    """`0-9,20` as numbers; raises ValueError where it is something else, or more than anybody runs."""
    found: list[int] = []
    for part in text.split(","):
        first, last = _seed_range(part.strip())
        if len(found) + last - first >= MOST_RUNS:
            raise ValueError(f"{EXCERPTS.repr(text)} are more than {MOST_RUNS} seeds")
        found += range(first, last + 1)
    return found


def _seed_range(text: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if match is None and not text.isdecimal():
        raise ValueError(f"{EXCERPTS.repr(text)} is neither a seed nor a range such as 0-9")
    first, last = (int(match[1]), int(match[2])) if match else (int(text), int(text))
    if last < first:
        raise ValueError(f"`{text}` counts down; write {last}-{first}")
    return first, last


def read_spec(name_or_path: str) -> ExperimentSpec:
    """The specification in a file, or a built-in one by its name.

    Raises:
        UsageError: there is no such file or name, or what it holds is not YAML, or a secret.
        InvalidDataError: it is no experiment; says what is wrong with it.

    """
    path = spec_path(name_or_path)
    values = _read(path)
    if not isinstance(values, dict):
        raise InvalidDataError(f"`{path}` does not hold an experiment: it needs title, arms and seeds by name")
    try:
        return ExperimentSpec.model_validate(values)
    except ValidationError as error:
        problems = [_explained(row) for row in error.errors()]
        raise InvalidDataError(f"`{path}` is not an experiment", details=problems) from error


def _explained(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{place}  is no part of an experiment{_meant_part(place)}"
    text = problem["msg"].removeprefix("Value error, ")
    return f"{place}  {text}" if place else text


def _meant_part(place: str) -> str:
    """What may have been meant by a name that is no part of an experiment, such as a setting that stands under none."""
    if meant := did_you_mean(place, ExperimentSpec.model_fields):
        return meant
    called = [place] if place.partition(".")[0] in SECTIONS else called_settings(place)
    return f" — did you mean `settings: {{{called[0]}: …}}`?" if called else ""


def _read(path: Path) -> Any:
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
        check_values(values)
        return values
    except UnicodeDecodeError as error:
        raise InvalidDataError(f"`{path}` is not UTF-8", details=[str(error)]) from error
    except UsageError as error:
        raise UsageError(f"`{path}`: {error.message}", details=error.details, hint=error.hint) from error


def with_settings(spec: ExperimentSpec, changes: Mapping[str, Any]) -> ExperimentSpec:
    """The experiment with settings of all runs replaced; one that stands in the grid gets these values there.

    Raises UsageError for one in which arms differ.
    """
    for key in changes:
        if any(key in settings for settings in spec.arms.values()):
            raise UsageError(f"`{key}` is what arms of this experiment differ in", hint="leave arms out with --arms")
    grid = {key: value if isinstance(value, list) else [value] for key, value in changes.items() if key in spec.grid}
    settings = {key: value for key, value in changes.items() if key not in spec.grid}
    values = spec.model_dump() | {"grid": {**spec.grid, **grid}, "settings": {**spec.settings, **settings}}
    try:
        return ExperimentSpec.model_validate(values)
    except ValidationError as error:
        raise UsageError(
            "the experiment can't be with these settings", details=[_explained(error.errors()[0])]
        ) from error


def spec_path(name_or_path: str) -> Path:
    """The file of a specification; raises UsageError where there is none."""
    path = Path(name_or_path)
    built_in = BUILT_IN / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    if built_in.is_file():
        return built_in
    nearby = [str(other) for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    meant = did_you_mean(name_or_path, [*built_in_specs(), *nearby])
    raise UsageError(
        f"`{name_or_path}` is neither a file nor an experiment that comes with the package{meant}",
        details=[f"known: {', '.join(built_in_specs())}"],
        hint="activedpo ls experiments",
    )


def built_in_specs() -> dict[str, str]:
    """Name → one line of help of the experiments in the package."""
    return {path.stem: _first_line(path) for path in sorted(BUILT_IN.glob("*.yaml"))}


def arms_of(spec: ExperimentSpec) -> dict[str, dict[str, Any]]:
    """Every arm with every combination of the grid: name → its settings with dotted keys."""
    return {
        name + suffix: {**spec.settings, **settings, **point}
        for name, settings in spec.arms.items()
        for suffix, point in points_of(spec)
    }


def counterparts(spec: ExperimentSpec, role: str | None) -> dict[str, str]:
    """For every arm the baseline's (or the ceiling's) arm at the same point of the grid; empty without such a role."""
    if role is None:
        return {}
    return {name + suffix: role + suffix for name in spec.arms for suffix, _ in points_of(spec)}


def points_of(spec: ExperimentSpec) -> list[tuple[str, dict[str, Any]]]:
    """Each combination of the grid, with what it adds to an arm's name."""
    points = [dict(zip(spec.grid, values, strict=True)) for values in itertools.product(*spec.grid.values())]
    return [
        ("".join(f"+{key.rpartition('.')[2]}={short_value(value)}" for key, value in point.items()), point)
        for point in points
    ]


def short_value(value: Any) -> str:
    """A value as part of a name; of a path or a hub id the last part, of a model that *sft* made its run's name."""
    text = f"{value:g}" if isinstance(value, float) else str(value).rstrip("/").removesuffix(SFT_MODEL)
    text = text.rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]", "-", text)


def with_variables(value: Any) -> Any:
    """Settings with `${NAME}` replaced by the environment variable; raises UsageError for one that is not set."""
    if isinstance(value, Mapping):
        return {key: with_variables(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [with_variables(entry) for entry in value]
    return _VARIABLE.sub(lambda match: _variable(match[1]), value) if isinstance(value, str) else value


def _variable(name: str) -> str:
    if name not in os.environ:
        raise UsageError(
            f"the experiment uses the environment variable {name}, which is not set", hint=f"export {name}=…"
        )
    return os.environ[name]


def _first_line(path: Path) -> str:
    return path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("#").strip().rstrip(".")
