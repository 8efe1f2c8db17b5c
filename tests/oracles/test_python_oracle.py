import hashlib
import sys

import pytest
from compared_pairs import make_comparison, seed_of_pair

from activedpo_cli.base.errors import ActiveDPOError, InvalidDataError, UsageError
from activedpo_cli.base.settings import LabelSettings
from activedpo_cli.oracles import python


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_module(source, name="rewards_for_test"):
        file = tmp_path / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
        return file

    yield write_module
    for name in [name for name in sys.modules if name.startswith(("rewards_for_test", "helper_for_test"))]:
        del sys.modules[name]


def build(function="score", module="rewards_for_test"):
    return python.build(f"{module}:{function}", LabelSettings(), "cpu")


@pytest.mark.parametrize(
    "returned",
    [
        "[len(r) for r in responses]",
        "(float(len(r)) for r in responses)",
        "__import__('numpy').array([len(r) for r in responses], dtype='float32')",
        "__import__('torch').tensor([float(len(r)) for r in responses], requires_grad=True)",
        "[__import__('torch').tensor(float(len(r))) for r in responses]",
    ],
)
def test_sequences_arrays_and_tensors_are_scores(write, returned):
    write(f"def score(prompts, responses):\n    return {returned}\n")
    assert build().score(["p", "p"], ["four", "seven!!"]) == [4.0, 7.0]


def test_verdicts_follow_the_scores(write):
    write("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    comparisons = [make_comparison(1, "long one", "short"), make_comparison(2, "ab", "cd")]
    assert [v.preferred for v in build().compare(comparisons, seed_of_pair)] == ["a", "tie"]


def test_prompts_arrive_as_they_are(write):
    write("seen = []\ndef score(prompts, responses):\n    seen.extend(prompts)\n    return [0] * len(responses)\n")
    messages = [{"role": "user", "content": "Hi"}]
    build().score(["plain", messages], ["a", "b"])
    assert sys.modules["rewards_for_test"].seen == ["plain", messages]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("[1.0]", "returned 1 scores for 2 responses"),
        ("None", "returned NoneType"),
        ("['good', 'bad']", "returned list"),
        ("[[1.0], [2.0]]", "returned list"),
        ("[1.0, float('nan')]", "response 2 of a batch the score nan"),
        ("3.0", "returned float"),
        ("'11'", "returned str"),
        ("b'11'", "returned bytes"),
        ("['1', '1']", "returned list"),
        ("__import__('numpy').array(['1', '1'])", "returned ndarray"),
        ("{1: 'a', 2: 'b'}", "returned dict"),
        ("{1.0, 2.0}", "returned set"),
        ("[10**400, 1]", "returned list"),
        ("[1j, 1]", "returned list"),
    ],
)
def test_what_is_no_score_is_refused(write, returned, message):
    write(f"def score(prompts, responses):\n    return {returned}\n")
    with pytest.raises(InvalidDataError, match=message):
        build().score(["p", "p"], ["a", "b"])


def test_a_score_that_is_not_finite_names_the_pair(write):
    write("def score(prompts, responses):\n    return [float('inf') if r == 'x' else 0.0 for r in responses]\n")
    with pytest.raises(InvalidDataError, match="pair `p000003/i001/r0-r1`"):
        build().compare([make_comparison(2), make_comparison(3, "y", "x")], seed_of_pair)


def test_a_failure_inside_is_reported_with_its_place(write):
    file = write("import json\n\ndef score(prompts, responses):\n    return json.loads('nonsense')\n")
    with pytest.raises(ActiveDPOError, match="rewards_for_test:score` failed") as raised:
        build().score(["p"], ["r"])
    assert raised.value.details[0].startswith("JSONDecodeError: Expecting value")
    assert raised.value.details[1] == f"at {file}:4"


@pytest.mark.parametrize(
    "failing",
    [
        "raise SystemExit",
        "__import__('sys').exit(0)",
        "raise GeneratorExit",
        "raise __import__('asyncio').CancelledError",
        "return (__import__('sys').exit(0) for response in responses)",
        "return [1.0 for response in responses] + [[][1]]",
    ],
)
def test_whatever_it_raises_ends_in_an_error(write, failing):
    """Also what is no Exception, and what is raised only when a generator is read."""
    file = write(f"def score(prompts, responses):\n    {failing}\n")
    with pytest.raises(ActiveDPOError, match="rewards_for_test:score` failed") as raised:
        build().score(["p"], ["r"])
    assert raised.value.details[1] == f"at {file}:2"


def test_ctrl_c_is_no_failure(write):
    write("def score(prompts, responses):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        build().score(["p"], ["r"])


def test_what_it_prints_is_no_result(write, capfd):
    """Also what a process prints that it starts; afterwards stdout is as it was."""
    write(
        "import os\nprint(1)\ndef score(prompts, responses):\n    os.system('echo 3')\n    print(2)\n    return [0.0]\n"
    )
    assert build().score(["p"], ["r"]) == [0.0]
    print("4")
    captured = capfd.readouterr()
    assert captured.out == "4\n"
    assert sorted(captured.err.split()) == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("source", "kind"),
    [("x = 1\ny = 1 / 0\n", "ZeroDivisionError"), ("x = 1\ny = (\n", "Syntax"), ("\nraise SystemExit", "SystemExit")],
)
def test_a_module_that_cannot_be_imported_is_reported_with_its_place(write, source, kind):
    file = write(source)
    with pytest.raises(ActiveDPOError, match="cannot be imported") as raised:
        build()
    assert raised.value.details[0].startswith(kind)
    assert raised.value.details[1] == f"at {file}:2"


def test_a_missing_function_suggests_the_nearest(write):
    write("def score_all(prompts, responses): ...\n")
    with pytest.raises(UsageError, match="did you mean `score_all`"):
        build("score_al")


def test_a_missing_module_suggests_the_nearest(write):
    write("")
    with pytest.raises(UsageError, match="did you mean `rewards_for_test`"):
        build(module="reward_for_test")


@pytest.mark.parametrize(
    "argument", [None, "", "rewards", "rewards:", ":score", "a-b:score", "a..b:score", "../x:score"]
)
def test_a_malformed_argument_is_a_usage_error(argument):
    with pytest.raises(UsageError, match="does not name a module and a function"):
        python.build(argument, LabelSettings(), "cpu")


def test_a_name_of_the_standard_library_is_refused(write):
    write("def score(prompts, responses): ...\n", "random")
    with pytest.raises(UsageError, match="Python itself"):
        build(module="random")


def test_the_path_is_as_before_and_nothing_is_left_in_the_folder(write, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    write("import helper_for_test\nscore = helper_for_test.score\n")
    write("def score(prompts, responses): return [1.0]\n", "helper_for_test")
    before = list(sys.path)
    assert build().score(["p"], ["r"]) == [1.0]
    assert sys.path == before
    assert not sys.dont_write_bytecode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["helper_for_test.py", "rewards_for_test.py"]


def test_modules_in_packages(write):
    write("", "rewards_for_test_package.__init__")
    write("def score(prompts, responses): return [2.0]\n", "rewards_for_test_package.inner")
    assert build(module="rewards_for_test_package.inner").score(["p"], ["r"]) == [2.0]


def test_modules_in_folders_without_an_init_file(write):
    """Nested folders, as a project's `docs/experiments/scorers.py` has them."""
    write("def score(prompts, responses): return [3.0]\n", "rewards_for_test_folder.deeper.inner")
    assert build(module="rewards_for_test_folder.deeper.inner").score(["p"], ["r"]) == [3.0]


def test_the_identity_is_the_file_as_it_is_and_so_is_the_function(write):
    for value in (1.0, 2.0):
        file = write(f"def score(prompts, responses): return [{value}]\n")
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert python.identity("rewards_for_test:score", LabelSettings()) == {
            "python:rewards_for_test:score": f"sha256:{digest}"
        }
        assert build().score(["p"], ["r"]) == [value]


def test_the_module_of_another_folder_does_not_answer(write, tmp_path, monkeypatch):
    write("def score(prompts, responses): return [1.0]\n")
    assert build().score(["p"], ["r"]) == [1.0]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "rewards_for_test.py").write_text("def score(prompts, responses): return [2.0]\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert build().score(["p"], ["r"]) == [2.0]
