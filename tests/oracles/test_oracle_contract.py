"""What holds for every oracle in the folder, present and future."""

import inspect
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from activedpo_cli.base import discovery
from activedpo_cli.base.errors import UsageError
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles.base import asks_people, open_oracle, oracle_identity

NAMES = sorted(discovery.available("oracles"))


@pytest.fixture(params=NAMES)
def module(request):
    return discovery.load("oracles", request.param)


def test_the_folder_is_found():
    assert {"human", "judge", "mixed", "python", "recorded", "reward-model"} <= set(NAMES)


def test_the_first_line_of_the_docstring_helps(module):
    first = module.__doc__.partition("\n")[0]
    assert 20 < len(first) < 120


def test_the_module_says_what_it_can_do(module):
    assert module.ASKS_PEOPLE in (True, False, "some")
    assert isinstance(module.SCORES_TEXT, bool)


def test_the_signatures_are_those_of_the_contract(module):
    if module.ASKS_PEOPLE is True:
        assert not module.SCORES_TEXT
        return
    build = inspect.signature(module.build)
    keywords = ["preferences", "memory"] if getattr(module, "KEEPS_REPLIES", False) else ["preferences"]
    assert list(build.parameters) == ["argument", "settings", "device", *keywords]
    assert {build.parameters[name].kind for name in keywords} == {inspect.Parameter.KEYWORD_ONLY}
    assert list(inspect.signature(module.identity).parameters) == ["argument", "settings"]


def test_identities_and_imports_need_no_torch(tmp_path):
    (tmp_path / "rewards.py").write_text("def score(prompts, responses): return [0.0] * len(responses)")
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    arguments = {"python": ["rewards:score"], "reward-model": [str(model)], "judge": ["m"], "mixed": ["m"]}
    program = (
        "import sys\n"
        "from activedpo_cli.base import discovery\n"
        "from activedpo_cli.base.settings import LabelSettings\n"
        "from activedpo_cli.oracles.base import oracle_identity\n"
        f"for name in {NAMES!r}:\n"
        f"    found = oracle_identity(':'.join([name, *{arguments!r}.get(name, [])]), LabelSettings())\n"
        "    assert all(isinstance(part, str) for item in found.items() for part in item), found\n"
        "heavy = {'torch', 'transformers', 'numpy', 'rewards', 'openai'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(discovery.__file__).parents[2])}
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("spec", ["human", "crowd"])
def test_people_can_not_be_called_whoever_brings_them(spec, monkeypatch):
    """The error comes from one place, so that a module of somebody else needs to say no more than that people answer."""
    crowd = SimpleNamespace(ASKS_PEOPLE=True, SCORES_TEXT=False)
    entry = SimpleNamespace(name="crowd", value="crowd", load=lambda: crowd)
    monkeypatch.setattr(discovery, "_entry_points", lambda folder: (entry,) if folder == "oracles" else ())
    assert asks_people(spec)
    assert oracle_identity(spec, LabelSettings()) == {}
    with pytest.raises(UsageError, match=f"people answer for the oracle `{spec}`"):
        open_oracle(spec, LabelSettings(), "cpu")
