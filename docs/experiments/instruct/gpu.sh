#!/usr/bin/env bash
# The experiment of instruct-methods-gpu.yaml on a machine with a GPU and without a network, from a copy of this repository.
#
#   gpu.sh pack FOLDER      here, once prepare.py has run: the GGUF file, prompts, scorers and wheels, as FOLDER/part-*, 40 MiB each
#   gpu.sh take FOLDER      there, for the parts that have arrived in FOLDER; some now and some later is right
#   gpu.sh run [WORD ...]   there, with all parts: many runs at once, for so many minutes; WORDs go to `activedpo experiment`
#
# `run` goes on where it stopped while the machine stands, and leaves in OUT a few small files of all finished runs: results.jsonl,
# summary.json, tables.md, what the workers said at last. In the environment:
#   GGUF     the model, for pack             (needed)
#   INSTRUCT what prepare.py has made        runs/instruct
#   WHEELS   packages to carry               those that an image with torch, transformers and peft lacks
#   TARGET   options of pip for the machine  CPython 3.12 on x86-64
#   STORE    where parts and runs lie there  /tmp/instruct
#   SPEC     the experiment                  instruct-methods-gpu.yaml beside this
#   JOBS     processes on the one card       10
#   MINUTES  when to stop                    8
#   OUT      where results go                runs/instruct-gpu
#   PYTHON   which one                       python3
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
store=${STORE:-/tmp/instruct}
spec=${SPEC:-$here/instruct-methods-gpu.yaml}
python=${PYTHON:-python3}
wheels=${WHEELS-trl==1.16.0 datasets==5.2.0 multiprocess==0.70.19 dill==0.4.1 pydantic==2.14.4 pydantic-core==2.50.5 typing-inspection annotated-types gguf==0.19.0}
target=${TARGET---python-version 3.12 --implementation cp --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64}
do=${1:-}; shift || true

pack() {
  local folder=$1 made=${INSTRUCT:-runs/instruct} load
  load=$(mktemp -d)
  mkdir -p "$folder" "$load/wheels"
  # shellcheck disable=SC2086  # several words are meant
  [ -z "$wheels" ] || "$python" -m pip download -q --no-deps --only-binary=:all: $target -d "$load/wheels" $wheels
  ln -s "$(realpath "${GGUF:?names the GGUF file of the model}")" "$load/model.gguf"
  cp "$made/prompts.jsonl" "$made/rewards.safetensors" "$load"
  rm -f "$folder"/part-*
  tar -chC "$load" . | gzip -1 | split -b 40M -d - "$folder/part-"
  (cd "$folder" && sha256sum part-* >parts.sha256)
  rm -r "$load"
  ls -l "$folder"
}

take() {
  mkdir -p "$store/parts"
  cp "$1"/part* "$store/parts"
  ls -l "$store/parts"
}

unpack() {
  [ ! -f "$store/unpacked" ] || return 0
  (cd "$store/parts" && sha256sum --quiet -c parts.sha256)
  cat "$store"/parts/part-* | tar -xzC "$store"
  if ls "$store"/wheels/*.whl >/dev/null 2>&1; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$store/site" "$store"/wheels/*.whl
  fi
  touch "$store/unpacked"
}

run() {
  local out=${OUT:-$root/runs/instruct-gpu} code=0
  unpack
  cd "$root"
  export PYTHONPATH="$store/site:$root${PYTHONPATH:+:$PYTHONPATH}" INSTRUCT=$store HF_HUB_OFFLINE=1
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  if [ ! -d "$store/model" ]; then
    "$python" - "$store" <<'CODE'
import sys
from pathlib import Path

from activedpo_cli.models.gguf_files import convert_gguf

store = Path(sys.argv[1])
print(convert_gguf(store / "model.gguf", "bfloat16", store / "model.partial"))
(store / "model.partial").rename(store / "model")
CODE
  fi
  mkdir -p "$out"
  timeout --signal=TERM --kill-after=40 "$((${MINUTES:-8} * 60))" "$python" -m activedpo_cli experiment "$spec" \
    --output "$store/experiment" --jobs "${JOBS:-10}" --no-report --quiet "$@" || code=$?
  echo "the experiment ended with exit code $code (124: the time was up)"
  tail -n 3 "$store"/experiment/logs/*.log >"$out/last-words.txt" 2>/dev/null || true
  # What is finished is reported whether or not the time was enough for everything.
  "$python" - "$store/experiment" "$out" <<'CODE'
import json
import shutil
import sys
from pathlib import Path

from activedpo_cli.experiments.folder import ExperimentFolder
from activedpo_cli.experiments.report import build_experiment_report
from activedpo_cli.experiments.spec import ExperimentSpec

source, out = map(Path, sys.argv[1:])
folder = ExperimentFolder(source, ExperimentSpec.model_validate(json.loads((source / "experiment.json").read_text())))
finished = sum(folder.is_done(job) for job in folder.jobs())
print(f"{finished} of {len(folder.jobs())} runs are finished")
if finished:
    build_experiment_report(folder)
    for name in ("experiment.json", "results.jsonl", "summary.json", "tables.md"):
        shutil.copy(source / name, out / name)
CODE
  [ "$code" = 124 ] || return "$code"
}

case $do in
  pack | take) "$do" "${1:?names a folder}" ;;
  run) run "$@" ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
