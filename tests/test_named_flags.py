"""Every flag that the pages, messages and hints name exists, on the command that it stands with, and in full."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_help import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = sorted((ROOT / "activedpo_cli").rglob("*.py"))
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
OF_OTHERS = {
    *("--local-dir", "--upgrade", "--no-deps", "--check", "--minutes", "--small", "--table", "--no-"),
    *("--quick", "--config", "--mixed", "--num", "--main", "--multi", "--dynamo", "--module"),
    *("--view-id", "--data", "--ref", "--turns", "--strict"),
    *("--array", "--requeue", "--ntasks", "--gpus", "--gpus-per-task", "--nproc", "--no-python"),
    *("--no-optional-locks", "--always", "--dirty", "--abbrev", "--exclude", "--from"),
    *("--enable-lora", "--max-lora-rank", "--max-loras", "--max-model-len", "--generation-config", "--enforce-eager"),
    *("--revision", "--logdir", "--project", "--gguf", "--merge"),
    *("--no-enable-chunked-prefill", "--gpu-memory-utilization", "--max-num-seqs", "--tensor-parallel-size"),
    *("--pipeline-parallel-size", "--data-parallel-size", "--host", "--port", "--uds", "--api-key"),
    *("--served-model-name", "--uvicorn-log-level", "--revision", "--tokenizer", "--tokenizer-revision"),
}
"""Flags of pip, hf, ruff, mkdocs, labelling tools, trackers, trainers, SLURM, torchrun, accelerate (up to an
underscore), git, uv, vLLM, llama.cpp and of this project's own scripts."""


def flags_of(command: str) -> set[str]:
    return {flag for parameter in COMMANDS[command].params for flag in (*parameter.opts, *parameter.secondary_opts)}


ALL_FLAGS = {flag for command in COMMANDS for flag in flags_of(command)} | {
    *("--help", "--version", "--install-completion", "--show-completion")
}


def commands_in(text: str) -> Iterator[tuple[str, set[str]]]:
    """Each command that is written out, with or without `activedpo` before it, and the flags that follow it."""
    code = [*re.findall(r"```(?:bash)?\n(.*?)```", text, re.DOTALL), *re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    for span in code:
        for line in re.split(r"\n|;|&&|\|", span.replace("\\\n", "")):
            words = re.sub(r"#.*", "", line).split()
            words = words[words.index("activedpo") + 1 if "activedpo" in words else 0 :]
            name = next((name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS), None)
            if name:
                yield name, set(FLAG.findall(" ".join(words)))


def texts_of(path: Path) -> list[str]:
    """The page, or the strings of the module, values in them left open."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [content]
    texts = []
    for node in ast.walk(ast.parse(content)):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            texts.append(node.value)
    return texts


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_named_flags_exist_where_they_stand(path: Path) -> None:
    for text in texts_of(path):
        assert set(FLAG.findall(text)) <= ALL_FLAGS | OF_OTHERS
        for command, flags in commands_in(
            text if "`" in text else f"`{text}`" if text.startswith("activedpo ") else ""
        ):
            assert flags <= flags_of(command) | {"--help"}, f"{command}: {text}"


def test_the_search_finds_a_flag_that_is_not_there() -> None:
    text = "```bash\nactivedpo select --budget 5 \\\n  --epochs 3\n```\nor `label --exprt FILE`, and `uv run --with x`"
    assert list(commands_in(text))[:2] == [("select", {"--budget", "--epochs"}), ("label", {"--exprt"})]
    assert "--epochs" not in flags_of("select")
