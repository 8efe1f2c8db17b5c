"""Whatever stands in a file, each parser reads it or says what is wrong with it, naming the file: no other error."""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from exchanged_files import export_pairs, import_answers
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as safetensors_bytes

from activedpo_cli.base.config import parse_assignment, parse_config, render_config, with_changes
from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.base.records import Label, Response
from activedpo_cli.base.settings import Config, PromptSettings
from activedpo_cli.base.tables import TABLE_SUFFIXES, read_table
from activedpo_cli.base.tensor_rows import TensorRows
from activedpo_cli.experiments.spec import BUILT_IN, arms_of, read_spec
from activedpo_cli.generate.backends._recorded import read_recorded, read_recorded_pairs
from activedpo_cli.models import resolve
from activedpo_cli.models.merging import merge_adapter_model
from activedpo_cli.models.resolve import ModelLocation, model_digest
from activedpo_cli.oracles.base import Comparison
from activedpo_cli.prompts._collect import collect_prompts
from activedpo_cli.select.from_files.choice import PickLog
from activedpo_cli.select.from_files.pair_list import read_pairs
from activedpo_cli.store.jsonl import encode_rows, read_json, read_rows
from activedpo_cli.store.label_log import LabelLog
from activedpo_cli.store.manifest import Manifest, OutputFile, read_manifest, write_manifest
from activedpo_cli.store.run_record import read_base, read_facts
from activedpo_cli.store.tensors import count_tensor_rows, read_metadata, read_tensors
from activedpo_cli.train.sft_data import read_sft_rows

TEXT = 'a "b", \u2028\x85\x0b\x0c\x00\x1b[31m [/x] =1+1 \u202e\u200b {{ 7 * 7 }} \U0001f600 end'
ROWS = [
    {"prompt": TEXT, "responses": ["one", {"text": "two\r\nlines", "score": 1.5}], "pair_id": 1},
    {"prompt": "b", "chosen": "yes", "rejected": "no", "response_a": 0, "response_b": 1, "pair_id": "x"},
    {"prompt": [{"role": "user", "content": "c"}], "completion": "d", "response": "e", "text": "f"},
]


def _jsonl(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _csv(delimiter: str) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerows([["prompt", "response", "score"], [TEXT, "two\nlines", "1.5"], ["b", "=c", ""]])
    return stream.getvalue().encode()


def _parquet() -> bytes:
    import pyarrow
    from pyarrow import parquet

    stream = io.BytesIO()
    parquet.write_table(pyarrow.table({"prompt": ["a", TEXT], "response": ["b", "c"], "score": [1.0, None]}), stream)
    return stream.getvalue()


def _table(suffix: str) -> bytes:
    plain = suffix.removesuffix(".gz")
    made = {
        ".json": lambda: json.dumps(ROWS).encode(),
        ".csv": lambda: _csv(","),
        ".tsv": lambda: _csv("\t"),
        ".parquet": _parquet,
        ".txt": lambda: f"{TEXT}\nb\r\n\nc".encode(),
    }.get(plain, lambda: _jsonl(ROWS))()
    return gzip.compress(made) if suffix.endswith(".gz") else made


def _response(name: str, text: str = TEXT) -> Response:
    return Response(
        response_id=f"p1/{name}", prompt_id="p1", prompt_token_ids=[1], token_ids=[3], text=text, finish_reason="stop"
    )


COMPARISON = Comparison("p1/r0-r1", TEXT, _response("r0"), _response("r1", "two\r\nlines"))
FEATURES = safetensors_bytes({"features": torch.ones(4, 3), "other": torch.zeros(2)}, {"made": "by a test"})
BASE = {"name": "m", "path": "reference/model", "hub_id": None, "revision": None, "files": {}, "digest": "d"}
FACTS = {"schema": 1, "preset": "tiny", "prompts_source_digest": None, "prompts_digest": "d", "fixed": {"seed": 1}}


def _label_log() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        log = LabelLog(Path(folder) / "labels.jsonl", now=lambda: "2026-01-01T00:00:00")
        log.append(Label(pair_id="a", outcome="chosen", preferred_id="b", oracle="human", note=TEXT))
        log.retract("a")
        return log.path.read_bytes()


def _manifest() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output = OutputFile(sha256="0", bytes=1, rows=1)
        write_manifest(
            Path(folder),
            Manifest(stage="s", stage_version=1, iteration=1, settings={"a": 1}, inputs={}, outputs={"f": output}),
        )
        return (Path(folder) / "manifest.json").read_bytes()


def _import(path: Path) -> None:
    import_answers(path.read_bytes(), path.name, [COMPARISON])


def _tensors(path: Path) -> None:
    rows = TensorRows(path, "features")
    rows.read(0, rows.shape[0])


def _records_of_tensors(path: Path) -> None:
    count_tensor_rows(path)
    read_metadata(path)
    read_tensors(path)


def _assigned(path: Path) -> None:
    """What a shell hands over; bytes that are not UTF-8 become lone surrogates."""
    text = path.read_bytes().decode(errors="surrogateescape")
    for key in (
        text,
        f"select.methods.activedpo.ridge={text}",
        f"label.oracle={text}",
        f"generate.stop_token_ids={text}",
    ):
        config = with_changes(Config(), dict([parse_assignment(key)]))
        render_config(config).encode()


def _experiment(path: Path) -> None:
    arms_of(read_spec(str(path)))


def _index(path: Path) -> None:
    (path.parent / "model.safetensors").write_bytes(FEATURES)
    model_digest(ModelLocation(name="m", path=str(path.parent), hub_id=None, revision=None))


def _adapter(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resolve, "_may_be_hub_id", lambda name: False)
        merge_adapter_model(path.parent, path.parent / "out")


def _collected(path: Path) -> None:
    collect_prompts(PromptSettings(source=str(path), eval_prompts=0), 0)


Parser = tuple[str, Callable[[Path], Any], bytes]
PARSERS: dict[str, Parser] = {
    **{
        f"table {suffix}": (f"f{suffix}", lambda path: list(read_table(path)), _table(suffix))
        for suffix in TABLE_SUFFIXES
    },
    **{f"responses {suffix}": (f"f{suffix}", read_recorded, _table(suffix)) for suffix in (".jsonl", ".csv")},
    "pairs of responses": ("f.jsonl", read_recorded_pairs, _jsonl(ROWS[1:2])),
    "prompts": ("f.jsonl", _collected, _jsonl([{"prompt": "a"}, {"prompt": "b"}])),
    "texts to learn": ("f.jsonl", read_sft_rows, _jsonl([{"prompt": "a", "completion": "b"}, {"text": "c"}])),
    "pairs of rows": ("f.jsonl", lambda path: read_pairs(path, 4, SilentProgress()), _jsonl(ROWS[1:2])),
    "features": ("f.safetensors", _tensors, FEATURES),
    "tensors of a run": ("f.safetensors", _records_of_tensors, FEATURES),
    "settings": (
        "config.yaml",
        lambda path: parse_config(path.read_bytes().decode(errors="replace")),
        render_config(Config()).encode(),
    ),
    "assignment": ("set", _assigned, b"select.budget=[3, {a: !!int 4}]"),
    "experiment": (
        "spec.yaml",
        _experiment,
        (BUILT_IN / "figure-2.yaml").read_bytes()
        if (BUILT_IN / "figure-2.yaml").is_file()
        else next(BUILT_IN.glob("*.yaml")).read_bytes(),
    ),
    "rows of a run": (
        "f.jsonl",
        lambda path: read_rows(path, Response),
        encode_rows([_response("r0"), _response("r1")]),
    ),
    "values of a run": ("f.json", read_json, json.dumps(ROWS).encode()),
    "labels": ("labels.jsonl", lambda path: LabelLog(path).labels(), _label_log()),
    "manifest": ("manifest.json", lambda path: read_manifest(path.parent), _manifest()),
    "run.json": ("run.json", lambda path: read_facts(path.parent), json.dumps(FACTS).encode()),
    "base.json": (
        "base.json",
        lambda path: read_base(path.parent, path.name),
        json.dumps({**BASE, "stored_in_run": True}).encode(),
    ),
    **{
        f"answers {kind}": (f"f.{kind}", _import, export_pairs([COMPARISON], f"f.{kind}", seed=0))
        for kind in ("jsonl", "csv")
    },
    "picks": (
        ".picks",
        lambda path: PickLog(path).picks(),
        b'{"row": 1, "score": 1.5, "exactly": true}\n',
    ),
    "index of a model": ("model.safetensors.index.json", _index, b'{"weight_map": {"a": "model.safetensors"}}'),
    "adapter": (
        "adapter_config.json",
        _adapter,
        b'{"base_model_name_or_path": "/none"}',
    ),
}
NAMED_ELSEWHERE = {"settings", "assignment", "picks"}
"""Parsers of text: whoever opens the file names it."""

JUNK = [
    *(b"\xff\xfe", b"\0", b"\n", b"\r", b"\t", b'"', b"{", b"}", b"[", b",", b": ", b"- ", b"\\ud800", b"\xe2\x80\xa8"),
    *(b"NaN", b"-Infinity", b"null", b"1e999", b"9" * 5000, b"0-99999999999", b"[" * 3000, b'{"a":' * 3000),
    *(b"&a [*a]", b"<<: *x", b"!!python/object:os.system", b"!!set {a}", b"../../etc/passwd", b"\x1b]0;x\x07"),
    b'{"prompt": "a", "prompt": "b"}\n',
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.just("../x")
KEYS = (
    st.sampled_from(sorted({*ROWS[0], *ROWS[1], *ROWS[2], *BASE, *FACTS, "event", "label", "arms", "outputs"}))
    | st.text()
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6))


@st.composite
def contents(draw: st.DrawFn, valid: bytes) -> bytes:
    """Bytes without sense, values of other shapes, or what is valid with something cut, put in, repeated or flipped."""
    kind = draw(st.sampled_from(["mutated", "mutated", "structured", "bytes"]))
    if kind == "bytes":
        return draw(st.binary(max_size=200) | st.lists(st.sampled_from(JUNK), max_size=6).map(b"".join))
    if kind == "structured":
        values = draw(st.lists(VALUES, max_size=4))
        return _jsonl(values) if draw(st.booleans()) else json.dumps(values[0] if len(values) == 1 else values).encode()
    data = valid
    for _ in range(draw(st.integers(1, 3))):
        start, stop = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        middle = draw(st.sampled_from([b"", data[start:stop] * 2, bytes([draw(st.integers(0, 255))]), *JUNK]))
        data = data[:start] + middle + data[stop if draw(st.booleans()) else start :]
    return data


def check(name: str, data: bytes) -> None:
    """Read the bytes: everything, or a refusal that names the file."""
    file_name, parse, _ = PARSERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_name
        path.write_bytes(data)
        refusal, found = None, None
        try:
            found = parse(path)
        except ActiveDPOError as error:
            refusal = error
    if refusal is not None:
        assert refusal.exit_code in (2, 4)
        said = (refusal.message, *refusal.details)
        assert name in NAMED_ELSEWHERE or any(file_name in text or folder in text for text in said)
        return
    if name == "table .jsonl":
        values = json_values(data.decode("utf-8-sig"))
        assert len(found) == (len(values[0]) if len(values) == 1 and isinstance(values[0], list) else len(values))


def json_values(text: str) -> list[Any]:
    """The values of a text one behind the other, by the decoder of the standard library."""
    values, rest = [], text.strip()
    while rest:
        value, end = json.JSONDecoder().raw_decode(rest)
        values.append(value)
        rest = rest[end:].strip()
    return values


def fuzz(name: str, examples: int) -> None:
    """The same examples each time, so that a failure is one for everybody."""

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(contents(PARSERS[name][2]))
    def read(data: bytes) -> None:
        check(name, data)

    read()


@pytest.mark.parametrize("name", PARSERS)
def test_the_valid_one_is_read(name: str) -> None:
    """Else the others would be refused for another reason than theirs."""
    if name in ("responses .jsonl", "responses .csv", "assignment", "adapter", "pairs of rows"):
        return
    file_name, parse, valid = PARSERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / file_name
        path.write_bytes(valid)
        parse(path)


@pytest.mark.parametrize("name", PARSERS)
def test_anything_else_is_read_or_refused(name: str) -> None:
    fuzz(name, 25)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARSERS)
def test_anything_else_is_read_or_refused_thousands_of_times(name: str) -> None:
    fuzz(name, 3000)
