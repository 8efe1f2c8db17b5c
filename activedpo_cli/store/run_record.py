"""Reads and checks `run.json`, `reference/base.json` and `reference/sft/base.json`."""

from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from activedpo_cli.base.errors import InvalidDataError
from activedpo_cli.base.looking_once import once
from activedpo_cli.store.jsonl import read_json
from activedpo_cli.store.links import is_inside

RUN_SCHEMA = 1
RUN_NAME = "run.json"
BASE_NAME = "reference/base.json"
SFT_BASE_NAME = "reference/sft/base.json"


class _Facts(BaseModel):
    """What is read from `run.json`; the rest of it is for people."""

    model_config = ConfigDict(strict=True)

    schema_version: int = Field(alias="schema")
    preset: str
    prompts_source_digest: str | None
    prompts_digest: str
    fixed: dict[str, Any] = {}


class _BaseFile(BaseModel):
    model_config = ConfigDict(strict=True)

    bytes: int
    sha256: str


class _Packed(_BaseFile):
    path: str


class _Base(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    path: str | None
    hub_id: str | None
    revision: str | None
    files: dict[str, _BaseFile]
    digest: str
    stored_in_run: bool
    converted_from: _Packed | None = None

    @model_validator(mode="after")
    def _lies_somewhere(self) -> "_Base":
        if self.path is None and self.hub_id is None:
            raise ValueError("neither path nor hub_id is given")
        if self.stored_in_run and not (self.path and is_inside(self.path)):
            raise ValueError(f"the path {self.path!r} leads out of the run")
        for name in self.files:
            if PurePath(name).name != name:
                raise ValueError(f"the file {name!r} does not lie in the model's folder")
        return self


def read_facts(run_path: Path) -> dict[str, Any]:
    """The content of `run.json`.

    Raises InvalidDataError that names the file when it is damaged, or was written by a newer version.
    """
    path = run_path / RUN_NAME
    data = read_json(path)
    if isinstance(data, dict) and isinstance(data.get("schema"), int) and data["schema"] > RUN_SCHEMA:
        raise InvalidDataError(
            f"`{path}` was written by a newer version of activedpo (schema {data['schema']}, this one reads "
            f"{RUN_SCHEMA})",
            hint="update with `pip install --upgrade activedpo-cli`",
        )
    return _checked(path, data, _Facts)


def read_base(run_path: Path, name: str = BASE_NAME) -> dict[str, Any]:
    """The record of weights in `reference/base.json`, or in `name`; raises InvalidDataError when it is damaged."""
    path = run_path / name
    return once(("base", path), lambda: _checked(path, read_json(path), _Base))


def _checked(path: Path, data: Any, kind: type[BaseModel]) -> dict[str, Any]:
    try:
        kind.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidDataError(
            f"`{path}` is damaged", details=[f"{'.'.join(map(str, first['loc']))}: {first['msg']}"]
        ) from error
    return data
