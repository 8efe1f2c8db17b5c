"""Flags that are the same everywhere, and flags made from the settings they set."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer

from activedpo_cli.base.settings import SECTIONS, Config
from activedpo_cli.cli import completion

RunOption = Annotated[
    Optional[str],
    typer.Option(
        "--run",
        metavar="NAME_OR_PATH",
        help="The run. [default: $ACTIVEDPO_RUN, else runs/default]",
        autocompletion=completion.run_names,
    ),
]
IterationOption = Annotated[
    Optional[int],
    typer.Option(
        "--iteration",
        min=1,
        metavar="N",
        help="Iteration, from 1. [default: the newest there is]",
        autocompletion=completion.iterations,
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Make it again; the old result is kept in .stale/.")]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any setting of config.yaml; repeatable.",
        autocompletion=completion.setting_names,
    ),
]
PresetOption = Annotated[
    Optional[str],
    typer.Option(
        "--preset",
        help="Settings of a new run: paper where you give prompts, else tiny (see `activedpo ls presets`).",
        autocompletion=completion.presets,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="cpu, cuda, cuda:1, mps, auto, or balanced: all GPUs for one model. Never changes settings. $OMP_NUM_THREADS: "
        "threads.",
    ),
]
ShardOption = Annotated[
    Optional[str],
    typer.Option(
        "--shard",
        metavar="I/N",
        help="One of N processes that share the units of the work; 0/N is the first. [default: as torchrun, srun or a SLURM "
        "array says, else 0/1, alone]",
        rich_help_panel="Several processes",
    ),
]
WORKERS_PANEL = "Several processes"
ExecutorOption = Annotated[
    Optional[str],
    typer.Option("--executor", metavar="ray", help="Have Ray's workers do it.", rich_help_panel=WORKERS_PANEL),
]
WorkersOption = Annotated[
    Optional[int],
    typer.Option("--workers", min=1, help="How many. [default: 2]", rich_help_panel=WORKERS_PANEL),
]
GpusOption = Annotated[
    Optional[float],
    typer.Option(
        "--gpus-per-worker", min=0, help="[default: 1 where the cluster has GPUs]", rich_help_panel=WORKERS_PANEL
    ),
]
AddressOption = Annotated[
    Optional[str],
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="A running cluster. [default: one that is started here]",
        rich_help_panel=WORKERS_PANEL,
    ),
]
ProcessesOption = Annotated[
    Optional[int],
    typer.Option(
        "--num-processes",
        min=1,
        metavar="N",
        help="Train in N processes under `accelerate launch`, one a GPU; updates stay as large as they are. [default: 1]",
        rich_help_panel=WORKERS_PANEL,
    ),
]
AccelerateOption = Annotated[
    Optional[Path],
    typer.Option(
        "--accelerate-config",
        metavar="FILE",
        help="accelerate's configuration for them, as `accelerate config` writes it.",
        rich_help_panel=WORKERS_PANEL,
    ),
]
TrackOption = Annotated[
    Optional[str],
    typer.Option(
        "--track",
        metavar="NAME,NAME",
        help="Tell tensorboard, wandb, trackio or mlflow what finished stages measured, from now on; none: no more.",
        autocompletion=completion.trackers,
    ),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


class _Null:
    """Stands for `null` as it was typed, since a flag that was not given is None."""


NULL = _Null()


@dataclass(frozen=True)
class StageOptions:
    """What every stage of an iteration can be told beside its settings; each field is a flag."""

    run: RunOption = None
    iteration: IterationOption = None
    set_: SetOption = None
    force: ForceOption = False
    device: DeviceOption = "auto"
    shard: ShardOption = None
    executor: ExecutorOption = None
    workers: WorkersOption = None
    gpus_per_worker: GpusOption = None
    ray_address: AddressOption = None
    track: TrackOption = None
    quiet: QuietOption = False
    json: JsonOption = False


@dataclass(frozen=True)
class TrainOptions(StageOptions):
    """What *train* can be told; each field is a flag."""

    num_processes: ProcessesOption = None
    accelerate_config: AccelerateOption = None


@dataclass(frozen=True)
class SettingFlag:
    """A flag of one command and the setting behind it."""

    key: str
    flags: tuple[str, ...]

    @property
    def parameter_name(self) -> str:
        """The name of the function parameter that receives the flag."""
        return self.key.replace(".", "__")

    def parameter(self, panel: str) -> inspect.Parameter:
        """The parameter, None by default so that a flag left out can be told from one that was given."""
        field = _field(self.key)
        offer = completion.BY_SETTING.get(self.key) or _offer(field.annotation)
        kind = _flag_type(field.annotation)
        reads_null: dict[str, Any] = (
            {"parser": _or_null(kind), "metavar": f"<{kind.__name__}>"} if _is_null_or_number(field.annotation) else {}
        )
        option: Any = typer.Option(
            *self.flags,
            help=_help(field),
            show_default=False,
            rich_help_panel=panel,
            autocompletion=offer,
            **reads_null,
        )
        return inspect.Parameter(
            self.parameter_name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Optional[Any if reads_null else kind], option],
        )


def flags_of(*keys: str, prefix: str = "") -> list[SettingFlag]:
    """The flags of settings: `generate` stands for its whole section, `model.name` for one setting."""
    found = []
    for key in keys:
        section, _, leaf = key.partition(".")
        names = [leaf] if leaf or section not in SECTIONS else _with_a_flag(SECTIONS[section].model_fields)
        for name in names:
            full = f"{section}.{name}" if name else section
            found.append(SettingFlag(full, _flag_names(full, prefix)))
    return found


def _with_a_flag(settings: Mapping[str, Any]) -> list[str]:
    """All but those whose value is a mapping or a group of settings, which no one word can say."""
    return [
        name
        for name, field in settings.items()
        if get_origin(field.annotation) is not dict and not hasattr(field.annotation, "model_fields")
    ]


def without_clashes(flags: Iterable[SettingFlag]) -> list[SettingFlag]:
    """Each flag name only once: the first setting that claims it has it, others are left to `--set`."""
    taken: set[str] = set()
    kept = []
    for flag in flags:
        free = tuple(name for name in flag.flags if name not in taken)
        if free:
            kept.append(SettingFlag(flag.key, free))
            taken.update(free)
    return kept


def with_settings(
    flags: list[SettingFlag], panel: str = "Settings (written to config.yaml)"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command function these flags; it receives those that were typed as `given`, by dotted key.

    A parameter whose type is a dataclass of options, such as `StageOptions`, becomes a flag for each of its fields.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        own = [p for name, p in inspect.signature(function).parameters.items() if name != "given"]
        groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
        by_parameter = {flag.parameter_name: flag.key for flag in flags}

        @wraps(function)
        def command(**arguments: Any) -> Any:
            typed = {by_parameter[name]: arguments.pop(name) for name in by_parameter}
            for name, group in groups.items():
                arguments[name] = group(**{field.name: arguments.pop(field.name) for field in fields(group)})
            return function(given={key: value for key, value in typed.items() if value is not None}, **arguments)

        parameters = [flag.parameter(panel) for flag in flags]
        for parameter in own:
            parameters += _of_group(groups[parameter.name]) if parameter.name in groups else [parameter]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def _of_group(group: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass of options, as parameters of a command."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(f.name, kind, default=f.default, annotation=f.type) for f in fields(group)]


def all_given(given: Mapping[str, Any], assignments: Iterable[str] | None) -> dict[str, Any]:
    """Settings given by flags and by `--set`, as values; raises UsageError where one is a secret, which none may be."""
    from activedpo_cli.base.config import check_values, parse_assignment

    found = {key: _parsed(key, value) for key, value in given.items()}
    found |= dict(parse_assignment(text) for text in assignments or ())
    check_values(found)
    return found


def names_in(typed: str | None) -> list[str] | None:
    """Names that were typed with commas between them; None where nothing was typed."""
    return None if typed is None else [name.strip() for name in typed.split(",") if name.strip()]


def _parsed(key: str, value: Any) -> Any:
    """The value of a flag; a list is typed with commas, also where the setting takes one word instead of a list."""
    from activedpo_cli.base.config import read_value

    if value is NULL:
        return None
    annotation = _field(key).annotation
    if isinstance(value, str) and _is_number_or_word(annotation):
        return read_value(value)
    if not isinstance(value, str) or not _is_list(annotation) or _takes_word(annotation):
        return value
    return [read_value(part) for part in value.strip("[]").split(",") if part.strip()]


def _field(key: str) -> Any:
    section, _, leaf = key.partition(".")
    return SECTIONS[section].model_fields[leaf] if leaf else Config.model_fields[section]


def _flag_names(key: str, prefix: str) -> tuple[str, ...]:
    extra = _field(key).json_schema_extra or {}
    names = tuple(extra.get("flags", ())) or ("--" + key.rpartition(".")[2].replace("_", "-"),)
    stems = [prefix + name.removeprefix("--") for name in names]
    if _flag_type(_field(key).annotation) is bool:
        return tuple(f"--{stem}/--no-{stem}" for stem in stems)
    return tuple(f"--{stem}" for stem in stems)


def _help(field: Any) -> str:
    choices = _choices(field.annotation)
    first_word = field.description.split()[0].strip(":,")
    text = field.description
    if first_word not in (*choices, field.default):  # a value is typed as it stands
        text = text[0].upper() + text[1:]
    if choices:
        text += f" ({' | '.join(map(str, choices))})"
    default = field.default
    shown = ",".join(map(str, default)) if isinstance(default, list) else default
    return f"{text}." if shown in (None, "") else f"{text}. [default: {shown}]"


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return ()


def _offer(annotation: Any) -> Callable[[str], list[str]] | None:
    """What a shell offers for a setting of a few values, None for any other."""
    choices = [str(choice) for choice in _choices(annotation)]
    return (lambda incomplete: [choice for choice in choices if choice.startswith(incomplete)]) if choices else None


def _flag_type(annotation: Any) -> type:
    if get_origin(annotation) is Annotated:
        return _flag_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        inner = {_flag_type(member) for member in get_args(annotation) if member is not type(None)}
        return inner.pop() if len(inner) == 1 else str
    return annotation if annotation in (int, float, bool) else str


def _is_null_or_number(annotation: Any) -> bool:
    return _flag_type(annotation) in (int, float) and type(None) in get_args(annotation)


def _is_number_or_word(annotation: Any) -> bool:
    return float in get_args(annotation) and any(_choices(member) for member in get_args(annotation))


def _or_null(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return NULL if text.strip().lower() == "null" else kind(text)
        except ValueError as error:
            raise ValueError(f"`{text}` is neither {'a whole' if kind is int else 'a'} number nor null") from error

    return read


def _is_list(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_list(member) for member in get_args(annotation))
    return get_origin(annotation) is list


def _takes_word(annotation: Any) -> bool:
    return str in get_args(annotation)
