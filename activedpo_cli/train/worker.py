"""What each of several processes does that train together: `accelerate launch --module activedpo_cli.train.worker JOB`.

The process that started them holds the stage's lock, has looked at everything before, and writes what they made into the
run. Here nothing is written but in the folder of the job: by the first process what was made, by each what went wrong.
"""

import importlib
import json
import os
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from activedpo_cli.base.errors import ActiveDPOError
from activedpo_cli.base.hub_code import fetch_no_code
from activedpo_cli.base.interruption import PARENT_PIPE
from activedpo_cli.base.launchers import Processes, Shard, launched_as
from activedpo_cli.base.out_of_memory import is_out_of_memory
from activedpo_cli.base.progress import SilentProgress
from activedpo_cli.engine.step import Context, Execution, Stage
from activedpo_cli.store import files
from activedpo_cli.store.jsonl import encode_json
from activedpo_cli.store.lock import HeldLock
from activedpo_cli.store.run import Run
from activedpo_cli.store.stage_folder import StageFolder

JOB, ROWS, ERROR = "job.json", "rows.jsonl", "error-{}.json"
"""Files of a job: what is asked, the metrics of each update as it is made, and why a process of that number failed."""


def main() -> NoReturn:
    """Train, and end at once: a library's clean-up would wait for processes that are gone."""
    fetch_no_code()
    folder = Path(sys.argv[1])
    shard = launched_as(os.environ) or Shard(0, 1)
    if os.environ.get(PARENT_PIPE):
        if select.select([0], [], [], 0)[0]:  # it is gone already, and another may be at work in the folder
            os._exit(1)
        threading.Thread(target=_end_with_parent, daemon=True).start()
    code = 0
    try:
        _train(folder, shard)
    except BaseException as error:
        files.write_bytes(folder / ERROR.format(shard.index), encode_json(_facts(error) | {"time": time.time()}))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _train(folder: Path, shard: Shard) -> None:
    job = json.loads((folder / JOB).read_bytes())
    run, target = Run.open(Path(job["run"])), StageFolder(Path(job["folder"]))
    module = importlib.import_module(job["module"])
    stage: Stage = module.STAGE
    device = "cpu" if job["device"] == "cpu" else f"auto:{shard.local}"
    context = Context(
        run,
        job["iteration"],
        stage.seen(run, target.started, {}),
        target,
        Execution(device, shard=shard, processes=Processes(shard.count)),
        SilentProgress(),
        HeldLock(folder / f"lock-{shard.index}", "a worker's part"),
    )
    with files.library_writes(folder):
        scratch = folder / "scratch"  # where each leaves its part of a checkpoint
        files.make_folder(scratch)
        module.train_together(context, folder, scratch, _log_in(folder) if shard.is_first else _unlogged)


def _log_in(folder: Path) -> Callable[[dict[str, float]], None]:
    stream = files.open_log(folder / ROWS)

    def write(row: dict[str, float]) -> None:
        stream.write(encode_json(row) + b"\n")
        stream.flush()

    return write


def _unlogged(row: dict[str, float]) -> None:
    """The first process logs for all."""


def _facts(error: BaseException) -> dict[str, Any]:
    """What the process that started this one tells of the error."""
    if isinstance(error, ActiveDPOError):
        return error.to_travel()
    if isinstance(error, Exception) and is_out_of_memory(error):
        return {"message": "memory does not suffice to train", "details": [], "hint": None, "code": 1}
    lines = traceback.format_exception(error)
    return {"message": f"one of the processes failed: {error!r}", "details": lines[-2:], "hint": None, "code": 1}


def _end_with_parent() -> None:
    """End this process when the pipe ends that the one which started it holds."""
    while os.read(0, 64):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
