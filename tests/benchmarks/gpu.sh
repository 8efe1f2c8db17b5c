#!/bin/sh
# Everything that a GPU is to be measured for, in one command of under 8 minutes without a network: see gpu.py beside this.
#   sh tests/benchmarks/gpu.sh --output gpu.json        on one large GPU
#   sh tests/benchmarks/gpu.sh --small --device cpu     does it run?
exec "${PYTHON:-python3}" "$(dirname "$0")/gpu.py" "$@"
