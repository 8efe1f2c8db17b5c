"""Make the frozen runs of `tests/earlier_runs/`; kept to say how they came about, and run by no test.

The archives were made once, by version 0.1.0 as it was before its modules were moved, with the commands that stand below
as they would be typed:

    OMP_NUM_THREADS=1 PYTHONPATH=tests python tests/earlier_runs/make.py

They stand for runs that somebody made with that version, so they are not made again when the package changes: a later
version has to read them. Whoever must make a further one adds a function here and calls the script with its name.

Every command is typed in a folder of its own that holds all it needs, with relative paths, and that folder is what an
archive `NAME.tar.xz` holds. Beside it `NAME.json` has what the same version said and did:

- `looks`: commands that only look, and the JSON that they printed;
- `again`: commands whose work is finished, which say "up to date" and change nothing;
- `reports`: commands that make a report again, and where the numbers of the first one lie;
- `goes_on`: commands that continue what lies there, with what was typed at them and how they ended;
- `went_on`: the digests of all outputs after these;
- `chosen`: the picks among features in files, after these;
- `made_with`: what the last bits of floating-point numbers depend on.

Interruptions are real: a signal is sent when a file appears. Commands run in forked processes that have loaded the
libraries already, and whose host is called `somewhere`.
"""

import json
import os
import platform
import shutil
import signal
import socket
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from command_line import STAGES, all_outputs, rows
from small_models import save_small_model

HERE = Path(__file__).resolve().parent
SMALL = {
    "adapter.r": 2,
    "adapter.lora_alpha": 8,
    "featurize.proj_dim": 64,
    "featurize.unit_size": 4,
    "featurize.tokens_per_batch": 256,
    "select.budget": 4,
    "train.per_device_train_batch_size": 2,
    "train.num_train_epochs": 1,
    "train.learning_rate": 0.01,
    "evaluate.num_responses": 2,
    "evaluate.unit_size": 2,
}
SAMPLED = SMALL | {
    "generate.num_prompts": 6,
    "generate.num_responses": 3,
    "generate.max_new_tokens": 6,
    "generate.unit_size": 2,
    "generate.stop_token_ids": list(range(40)),  # else a random model hardly ever ends a response by itself
    "label.unit_size": 2,
    "evaluate.max_new_tokens": 6,
}
RULE = '''"""Prefers long responses; RULE_SECONDS makes it slow, so that it can be interrupted."""

import os
import time


def score(prompts: list[str], responses: list[str]) -> list[float]:
    """The number of characters, and a fraction that tells equal lengths apart."""
    time.sleep(float(os.environ.get("RULE_SECONDS", "0")))
    return [len(response) + sum(map(ord, response)) % 97 / 97 for response in responses]
'''
PROMPTS = [f"Question {number}: what is {number} times {number + 3}?" for number in range(20)]


class Workplace:
    """The folder that one archive will hold, and what is typed in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path.cwd()
        self.looks: list[dict[str, Any]] = []
        self.again: list[list[str]] = []
        self.reports: list[dict[str, Any]] = []
        self.goes_on: list[dict[str, Any]] = []

    def type(self, *words: object, code: int = 0, typed: str = "", stop: "Stop | None" = None, **env: str) -> str:
        """Run a command, which has to end with an exit code; returns what it printed."""
        line = [str(word) for word in words]
        print(f"[{self.name}] activedpo {' '.join(line)}", flush=True)
        with tempfile.TemporaryDirectory() as place:
            streams = {name: Path(place) / name for name in ("stdin", "stdout", "stderr")}
            streams["stdin"].write_text(typed)
            child = os.fork()
            if child == 0:
                _be_the_command(line, streams, env)
            if stop:
                stop.wait_and_send(child)
            _, status = os.waitpid(child, 0)
            ended = os.waitstatus_to_exitcode(status)
            said = streams["stderr"].read_text()
            if ended != (stop.code if stop else code):
                raise SystemExit(f"exit code {ended}: {streams['stdout'].read_text()}{said}")
            return streams["stdout"].read_text()

    def look(self, *words: object) -> Any:
        """Note what a command that looks prints as JSON."""
        line = [*(str(word) for word in words), "--json"]
        says = json.loads(self.type(*line))
        self.looks.append({"words": line, "says": says})
        return says

    def look_at(self, run: str, *, pairs: bool = True) -> None:
        """Look at a run in every way, and at the best pair of each iteration."""
        self.look("status", "--run", run)
        self.look("verify", "--run", run)
        for place in sorted(Path(run).glob("iter-*")):
            if not (place / "select" / "manifest.json").is_file():
                continue
            iteration = ("--iteration", int(place.name[5:]))
            self.look("show", "--run", run, *iteration)
            if not (place / "featurize" / "manifest.json").is_file():
                continue
            self.look("show", "features", "--run", run, *iteration)
            for row in rows(place / "select" / "selection.jsonl")[:1] if pairs else []:
                self.look("show", row["pair_id"], "--run", run)
                if (place / "featurize" / "features-00000.safetensors").is_file():
                    self.look("show", "--why", row["pair_id"], "--run", run)

    def finished_stages(self, run: str) -> None:
        """Note the commands of all finished stages of a run."""
        if (Path(run) / "reference" / "sft" / "manifest.json").is_file():
            self.again.append(["sft", "--run", run])
        for place in sorted(Path(run).glob("iter-*")):
            for stage in STAGES:
                if (place / stage / "manifest.json").is_file():
                    self.again.append([stage, "--run", run, "--iteration", str(int(place.name[5:]))])

    def set_report_aside(self, folder: str, name: str, *words: object) -> None:
        """Keep of a report only its numbers, since pictures are large, and note the command that made it."""
        Path("reports").mkdir(exist_ok=True)
        frozen = shutil.move(f"{folder}/report.json", f"reports/{name}.json")
        shutil.rmtree(folder)
        command = ["report", *(str(word) for word in words)]
        self.reports.append({"words": command, "made": f"{folder}/report.json", "frozen": frozen})

    def go_on(self, *words: object, typed: str = "", code: int = 0) -> None:
        """Note a command that continues what lies there; it is typed once the archive is packed."""
        self.goes_on.append({"words": [str(word) for word in words], "typed": typed, "code": code})

    def pack(self, *left_out: str) -> None:
        """Write the archive and, after what goes on went on, the JSON beside it."""
        archive = HERE / f"{self.name}.tar.xz"
        with tarfile.open(archive, "w:xz", preset=9) as packed:
            for path in sorted(self.folder.rglob("*"), key=_likeness):
                name = path.relative_to(self.folder).as_posix()
                is_kept = path.is_file() or (path.is_dir() and not any(path.iterdir()))
                if is_kept and not any(name.startswith(prefix) for prefix in left_out):
                    packed.add(path, name, filter=_by_nobody)
        before = {path: all_outputs(path) for path in _runs(self.folder)}
        for command in self.goes_on:
            self.type(*command["words"], typed=command["typed"], code=command["code"])
        after = {path: all_outputs(path) for path in _runs(self.folder)}
        went_on = {
            path.relative_to(self.folder).as_posix(): {
                stage: files for stage, files in found.items() if before.get(path, {}).get(stage) != files
            }
            for path, found in after.items()
        }
        record = {
            "made_with": made_with(),
            "looks": self.looks,
            "again": self.again,
            "reports": self.reports,
            "goes_on": self.goes_on,
            "went_on": {run: stages for run, stages in went_on.items() if stages},
            "chosen": {path.name: rows(path) for path in sorted(self.folder.glob("*.jsonl")) if _is_choice(path)},
        }
        text = json.dumps(record, indent=1, ensure_ascii=False, sort_keys=True)
        (HERE / f"{self.name}.json").write_text(text + "\n", encoding="utf-8")
        print(f"[{self.name}] {archive.stat().st_size} bytes", flush=True)


class Stop:
    """A signal to a command, when so many files of a pattern, or lines of one file, are there."""

    def __init__(self, number: int, pattern: str, *, files: int = 1, lines: int = 0) -> None:
        self.number, self.pattern, self.files, self.lines = number, pattern, files, lines
        self.code = -number if number == signal.SIGKILL else 130

    def wait_and_send(self, child: int) -> None:
        """Watch without a rest, since the work is quick."""
        end = time.monotonic() + 120
        while not self._is_time():
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                raise SystemExit(f"{self.pattern} never came")
        os.kill(child, self.number)

    def _is_time(self) -> bool:
        found = list(Path().glob(self.pattern))
        if len(found) < self.files:
            return False
        return not self.lines or found[0].read_bytes().count(b"\n") >= self.lines


def _be_the_command(words: list[str], streams: Mapping[str, Path], env: Mapping[str, str]) -> None:
    os.environ.update(env)
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(streams[name], flags, 0o600), descriptor)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.argv = ["activedpo", *words]
    sys.path[0] = ""
    socket.gethostname = lambda: "somewhere"  # type: ignore[assignment]
    from activedpo_cli.__main__ import main

    code: Any = 1
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _by_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _likeness(path: Path) -> tuple[str, str]:
    """Files of one name lie side by side, so that equal ones are stored once."""
    return path.name, path.as_posix()


def _runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("run.json"))


def _is_choice(path: Path) -> bool:
    return path.with_name(f"{path.name}.made.json").exists()


def made_with() -> dict[str, Any]:
    """What the last bits of floating-point numbers depend on, and the bytes of figures."""
    import matplotlib
    import torch

    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "matplotlib": matplotlib.__version__,
    }


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of a command."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def write_lines(path: str, lines: list[dict[str, Any]]) -> None:
    """A JSON Lines file."""
    Path(path).write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def write_rule() -> None:
    """The scoring function `long_rule:score`."""
    Path("long_rule.py").write_text(RULE)


def write_model() -> None:
    """`base`, a tiny random model, and `lora`, an adapter of it: a run merges them and holds the weights itself."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    smaller = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    save_small_model(Path("base"), tie_word_embeddings=True, **smaller)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        wanted = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        policy = get_peft_model(AutoModelForCausalLM.from_pretrained("base"), wanted)
    policy.save_pretrained("lora")
    path = Path("lora/adapter_config.json")
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"base_model_name_or_path": "base"}, indent=2))


def built_in(place: Workplace) -> None:
    """Three iterations of the built-in task and one of random choice, a comparison, a report of each and of both."""
    small = {
        "prompts.limit": 40,
        "prompts.eval_prompts": 8,
        "adapter.r": 2,
        "adapter.lora_alpha": 8,
        "adapter.target_modules": ["q_proj", "v_proj"],
        "generate.num_prompts": 8,
        "generate.max_new_tokens": 10,
        "generate.unit_size": 4,
        "featurize.proj_dim": 64,
        "featurize.unit_size": 8,
        "select.budget": 4,
        "evaluate.num_responses": 2,
        "evaluate.unit_size": 4,
    }
    place.type("run", "--run", "runs/tiny", "--iterations", 3, *assignments(small))
    place.type("run", "--run", "runs/random", "--iterations", 1, "--method", "random", *assignments(small))
    place.type("compare", "--run", "runs/tiny", "--iteration", 3)
    place.type("compare", "--run", "runs/tiny", "--iteration", 1, "--budget", 3, "--set", "select.activedpo.ridge=2.0")
    place.type("report", "runs/tiny", "runs/random")
    place.set_report_aside("runs/tiny/report-random", "both", "runs/tiny", "runs/random")
    place.set_report_aside("runs/tiny/report", "tiny", "runs/tiny")
    for picture in Path("runs/tiny/compare").glob("*/overlap.png"):
        picture.unlink()
    for run in ("runs/tiny", "runs/random"):
        place.look_at(run)
        place.finished_stages(run)
    place.again += [["run", "--run", "runs/tiny", "--no-report"], ["run", "--run", "runs/random"]]
    place.again.append(["report", "runs/random"])
    place.go_on("run", "--run", "runs/tiny", "--iterations", 4, "--no-report")
    place.go_on("generate", "--run", "runs/random", "--iteration", 2)


def pool(place: Workplace) -> None:
    """Recorded answers in two iterations of frozen history; and a choice among the pairs of a file."""
    save_small_model(Path("base"), hidden_size=16, intermediate_size=32, tie_word_embeddings=True)
    lines = []
    for prompt in range(14):
        responses: list[dict[str, Any]] = []
        for index in range(4):
            number = 4 * prompt + index
            row: dict[str, Any] = {"text": f"answer {prompt * 7 + index * 31} " + "because " * (index % 3)}
            row |= {"rm_a": float(number * 37 % 23)} if number % 5 else {}
            row |= {"rm_b": float(number * 11 % 19)} if number % 7 else {}
            responses.append(row)
        lines.append({"prompt": f"Frage {prompt}: wie weit, λ und µ?", "responses": responses})
    write_lines("pool.jsonl", lines)
    start = ("--model", "base", "--prompts", "pool.jsonl", "--responses", "pool.jsonl", "--eval-prompts", 5)
    answers = ("--oracle", "recorded", "--score-field", "rm_a", "--eval-score-field", "rm_b", "--num-prompts", 7)
    method = ("--history", "frozen", "--set", "select.activedpo.ridge=0.5", "--iterations", 2, "--no-report")
    place.type("run", "--run", "runs/pool", *start, *answers, *method, *assignments(SMALL))

    pairs = [
        {
            "prompt": f"Question {n // 2}",
            "chosen": f"answer {n * 37 % 11} of {n}",
            "rejected": f"reply {n * 5 % 7} " + "so " * (n % 4) + f"to {n}",
        }
        for n in range(20)
    ]
    pairs[7] = pairs[3]  # repeated
    pairs[11] = pairs[11] | {"rejected": pairs[11]["chosen"]}
    write_lines("pairs.jsonl", pairs)
    features = {key: value for key, value in SMALL.items() if key.startswith(("adapter.", "featurize."))}
    choice = ("select", "--pool", "pairs.jsonl", "--model", "base", "--budget", 5, "--run", "runs/pairs")
    choice = (*choice, "--ridge", 0.25, *assignments(features), "--output", "picked.jsonl")
    place.type(*choice)
    for run in ("runs/pool", "runs/pairs"):
        place.look_at(run)
        place.finished_stages(run)
    place.again += [["run", "--run", "runs/pool", "--no-report"], [str(word) for word in choice]]
    place.go_on("run", "--run", "runs/pool", "--iterations", 3, "--no-report")
    place.go_on("label", "--run", "runs/pairs", "--oracle", "recorded")
    place.go_on("train", "--run", "runs/pairs", "--epochs", 1)


def people(place: Workplace) -> None:
    """One iteration answered at the terminal and trained on, a second one partly answered and exported."""
    write_model()
    write_lines("prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    Path("guidelines.txt").write_text("Prefer the answer that is right; if both are, the shorter one.\n")
    start = ("--model", "lora", "--prompts", "prompts.jsonl", "--eval-prompts", 4)
    asks = {"select.budget": 6, "select.method": "activedpo"}
    run = ("--run", "runs/people")
    place.type("init", *run, *start, *assignments(SAMPLED | asks | {"select.activedpo.ridge": 0.75}))
    for stage in STAGES[:3]:
        place.type(stage, *run)
    label = ("label", *run, "--oracle", "human", "--annotator", "ann", "--guidelines", "guidelines.txt")
    place.type(*label, code=5, typed="1\n2\nu\nt\nn both are fine, “λ” too\nb\nq\n")
    place.type(*label, typed="g\ns\n2\n1\n")
    place.type("train", *run)
    place.type("evaluate", *run)
    for stage in STAGES[:3]:
        place.type(stage, *run, "--iteration", 2)
    place.type("label", *run, "--annotator", "ben", code=5, typed="2\nt\nu\n1\nn not sure\n1\nq\n")
    place.type("label", *run, "--export", "waiting.csv", code=5)
    _fill_in("waiting.csv", "answers.csv", ["a", "tie", "b", "both_bad", "skip", "a"])
    place.type("report", "runs/people")
    place.set_report_aside("runs/people/report", "people", "runs/people")
    place.look_at("runs/people")
    place.finished_stages("runs/people")
    place.go_on("label", *run, "--annotator", "ben", typed="2\nq\n", code=5)
    place.go_on("label", *run, "--import", "answers.csv")
    place.go_on("train", *run)
    place.go_on("evaluate", *run)
    place.go_on("generate", *run, "--iteration", 3)
    place.go_on("featurize", *run)


def _fill_in(source: str, target: str, answers: list[str]) -> None:
    import csv

    with Path(source).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        found, header = list(reader), reader.fieldnames
    assert header is not None
    with Path(target).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        for row, answer in zip(found, answers, strict=False):
            writer.writerow(row | {"preference": answer, "annotator": "cleo"})


def tuned(place: Workplace) -> None:
    """Supervised fine-tuning, then one iteration by a method that needs log-probabilities, answers drawn."""
    write_model()
    write_rule()
    write_lines("prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    examples = [{"prompt": f"Say {n}:", "completion": f" {n} and {n}."} for n in range(20)]
    write_lines("examples.jsonl", [*examples, {"text": "Once upon a time there was a cat."}])
    drawn = {"label.oracle": "python:long_rule:score", "label.answer": "bradley-terry", "label.noise": 0.1}
    columns = ["features", "hidden", "logps", "mean_hidden", "ref_logps", "scores"]
    method = {"select.method": "aplp", "select.max_per_prompt": 2, "featurize.compute": columns}
    start = ("--model", "lora", "--prompts", "prompts.jsonl", "--set", "prompts.eval_prompts=4")
    learning = {"sft.learning_rate": 0.01, "sft.per_device_train_batch_size": 4, "sft.num_train_epochs": 2}
    settings = SAMPLED | drawn | method | learning | {"sft.eval_share": 0.2, "adapter.target_modules": "all-linear"}
    place.type("sft", "--run", "runs/tuned", "--data", "examples.jsonl", *start, *assignments(settings))
    place.type("run", "--run", "runs/tuned", "--iterations", 1, "--no-report")
    place.look_at("runs/tuned")
    place.finished_stages("runs/tuned")
    place.again.append(["run", "--run", "runs/tuned", "--no-report"])
    place.go_on("run", "--run", "runs/tuned", "--iterations", 2, "--no-report")


def experiment(place: Workplace) -> None:
    """Two methods, two seeds, two iterations, features deleted; and a smaller one that keeps them."""
    write_model()
    write_rule()
    write_lines("prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    given = {"model.name": "lora", "prompts.source": "prompts.jsonl", "prompts.eval_prompts": 4}
    scored = {"label.oracle": "python:long_rule:score", "evaluate.second_scorer": "python:long_rule:score"}
    spec = {
        "title": "A small comparison",
        "settings": SAMPLED | given | scored,
        "arms": {
            "random": {"select.method": "random"},
            "ridge": {"select.method": "activedpo", "select.activedpo.ridge": 0.5},
        },
        "seeds": "3-4",
        "iterations": 2,
        "baseline": "random",
    }
    Path("small.yaml").write_text(json.dumps(spec, indent=2))  # JSON is YAML
    kept = spec | {"title": "One that keeps its features", "seeds": [3], "iterations": 1, "keep_features": True}
    Path("kept.yaml").write_text(json.dumps(kept, indent=2))
    place.type("experiment", "small.yaml")
    place.type("experiment", "kept.yaml")
    for picture in Path("runs").glob("*/figures/*.png"):
        picture.unlink()
    for run in sorted(Path("runs").glob("*/runs/[a-z]*")):
        place.look_at(run.as_posix(), pairs=run.name == "ridge-s3")
    place.again += [["experiment", "small.yaml"], ["experiment", "kept.yaml"]]
    Path("more").mkdir()
    Path("more/small.yaml").write_text(json.dumps(spec | {"seeds": "3-5"}, indent=2))
    place.go_on("experiment", "more/small.yaml")
    place.go_on("run", "--run", "runs/kept/runs/ridge-s3", "--iterations", 2, "--no-report")


def files(place: Workplace) -> None:
    """A choice among features in files, finished, and one that was interrupted."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    save_file({"features": torch.randn(120, 16, generator=generator).half()}, "F.safetensors")
    save_file({"pair_features": torch.randn(9, 16, generator=generator)}, "L.safetensors")
    every = torch.combinations(torch.arange(120))
    chosen = every[torch.randperm(len(every), generator=generator)[:300]].tolist()
    lines = [
        {"pair_id": f"pair {place}", "response_a": a, "response_b": b, "prompt_id": f"p{place // 3}"}
        for place, (a, b) in enumerate(chosen)
    ]
    write_lines("P.jsonl", lines)
    given = ("select", "--features", "F.safetensors", "--pairs", "P.jsonl", "--labelled", "L.safetensors")
    small = (*given, "--budget", 7, "--ridge", 0.5, "--max-per-prompt", 1, "--output", "picked.jsonl")
    long = (*given, "--budget", 12, "--memory", 1e-6, "--set", "select.activedpo.ridge=2.0", "--output", "long.jsonl")
    place.type(*small)
    place.type(*given, "--method", "k-center", "--budget", 5, "--output", "apart.jsonl")
    place.type(*long, stop=Stop(signal.SIGINT, ".long.jsonl.picks", lines=5))
    print(Path(".long.jsonl.picks").read_bytes().count(b"\n") - 1, "picks are kept")
    place.again.append([str(word) for word in small])
    place.again.append([*map(str, given), "--method", "k-center", "--budget", "5", "--output", "apart.jsonl"])
    place.go_on(*long)


def begun(place: Workplace) -> None:
    """Runs that were interrupted at every stage; each goes on to where it would have come without."""
    write_model()
    write_rule()
    write_lines("prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])
    write_lines("examples.jsonl", [{"prompt": f"Say {n}:", "completion": f" {n} and {n}."} for n in range(20)])
    start = ("--model", "lora", "--prompts", "prompts.jsonl", "--eval-prompts", 6)
    longer = {"generate.max_new_tokens": 12, "generate.unit_size": 1, "select.budget": 6, "evaluate.unit_size": 1}
    settings = SAMPLED | longer | {"label.oracle": "python:long_rule:score", "generate.stop_token_ids": []}
    place.type("init", "--run", "runs/original", *start, *assignments(settings))

    def copy(name: str) -> tuple[str, str]:
        shutil.copytree("runs/original", f"runs/{name}")
        return "--run", f"runs/{name}"

    run = copy("sft")
    learning = {"sft.learning_rate": 0.01, "sft.per_device_train_batch_size": 2, "sft.save_steps": 3}
    tune = ("sft", *run, "--data", "examples.jsonl", "--epochs", 2, *assignments(learning))
    place.type(*tune, stop=Stop(signal.SIGKILL, "runs/sft/reference/sft/checkpoint-*"))
    place.go_on("sft", *run)

    run = copy("generate")
    responses = "runs/{}/responses-*.jsonl"
    place.type("generate", *run, stop=Stop(signal.SIGKILL, responses.format("generate/iter-001/generate"), files=2))
    place.go_on("generate", *run)
    place.type("generate", "--run", "runs/original")

    run = copy("featurize")
    features = "runs/featurize/iter-001/featurize/features-*.safetensors"
    place.type("featurize", *run, stop=Stop(signal.SIGTERM, features, files=2))
    place.go_on("featurize", *run)
    for stage in ("featurize", "select"):
        place.type(stage, "--run", "runs/original")

    run = copy("redo")
    again = responses.format("redo/iter-001/.generate.redo")
    place.type("generate", *run, "--force", stop=Stop(signal.SIGINT, again, files=2))
    place.go_on("generate", *run, "--force")

    run = copy("label")
    slow = Stop(signal.SIGINT, "runs/label/iter-001/label/labels.jsonl", lines=2)
    place.type("label", *run, stop=slow, RULE_SECONDS="1")
    place.go_on("label", *run)
    place.type("label", "--run", "runs/original")

    run = copy("train")
    place.type("train", *run, stop=Stop(signal.SIGKILL, "runs/train/iter-001/train/started.json"))
    place.go_on("train", *run)
    place.type("train", "--run", "runs/original")

    run = copy("initial")
    first = responses.format("initial/reference/evaluate")
    place.type("evaluate", *run, stop=Stop(signal.SIGKILL, first, files=2))
    place.go_on("evaluate", *run)

    run = copy("evaluate")
    second = responses.format("evaluate/iter-001/evaluate")
    place.type("evaluate", *run, stop=Stop(signal.SIGTERM, second, files=2))
    place.go_on("run", *run, "--iterations", 2, "--no-report")

    shutil.rmtree("runs/original")
    for path in sorted(Path("runs").glob("[a-z]*")):
        place.look("status", "--run", path.as_posix())
        place.look("verify", "--run", path.as_posix())


LEFT_OUT = {"built-in": ("runs/tiny/reference/model/", "runs/random/reference/model/")}
"""The built-in model, which a run stores a copy of; the test puts it back."""
ARCHIVES: dict[str, Callable[[Workplace], None]] = {
    "built-in": built_in,
    "pool": pool,
    "people": people,
    "tuned": tuned,
    "experiment": experiment,
    "files": files,
    "begun": begun,
}


def main(names: list[str]) -> None:
    """Make the archives of these names, or all."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.pop("ACTIVEDPO_RUN", None)
    import datasets  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    import trl  # noqa: F401

    for name in names or ARCHIVES:
        with tempfile.TemporaryDirectory(prefix="earlier-runs-") as folder:
            os.chdir(folder)
            place = Workplace(name)
            ARCHIVES[name](place)
            place.pack(*LEFT_OUT.get(name, ()))
            os.chdir(HERE)


if __name__ == "__main__":
    main(sys.argv[1:])
