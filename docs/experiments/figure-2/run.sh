#!/usr/bin/env bash
# The paper's Figure 2 as one command: data, two models, and every model on every subset of prompts.
#
#   docs/experiments/figure-2/run.sh tiny [--seeds 0-1 …]              the built-in model and stories, on a CPU
#   ROWS=tldr.jsonl docs/experiments/figure-2/run.sh tldr [--jobs 2 …] Gemma-2B on TL;DR, on a GPU
#
# What follows the name goes to `activedpo experiment`. Stopped, it goes on; finished, it only says so. In the environment:
#   FIGURE_2           where data and models go           runs/figure-2-NAME-data
#   ROWS               SFT examples, for tldr              (needed)
#   COMPLETION_COLUMN  their column of answers             completion
#   PROMPTS            a file of prompts for DPO           those of rows that are not fine-tuned on
#   MODEL              the model before fine-tuning        tiny, or gemma-2b
#   SFT_OPTIONS        more options of `activedpo sft`     --lora-r 64, say
#   EVAL_PROMPTS       prompts held out, for tldr          100
set -euo pipefail
name=${1:-}; shift || true
export FIGURE_2=${FIGURE_2:-runs/figure-2-$name-data}
here=$(dirname "$0")
options=${SFT_OPTIONS:-}

case $name in
  tiny)
    data=(--tiny)
    # the built-in model is small: the paper's rate of 2e-5 would hardly move it
    sft=(--preset tiny --model "${MODEL:-tiny}" --epochs 2 --learning-rate 5e-4) ;;
  tldr)
    eval_prompts=${EVAL_PROMPTS:-100}
    data=(--rows "${ROWS:?names the file of SFT examples}" --completion-column "${COMPLETION_COLUMN:-completion}"
      --eval-prompts "$eval_prompts" ${PROMPTS:+--prompts "$PROMPTS"})
    sft=(--preset paper --model "${MODEL:-gemma-2b}" --eval-prompts "$eval_prompts") ;;
  *) echo "usage: $0 tiny|tldr [options of activedpo experiment]" >&2; exit 2 ;;
esac

python "$here/prepare.py" --output "$FIGURE_2" "${data[@]}"
for number in 1 2; do
  # shellcheck disable=SC2086  # several words are meant
  activedpo sft --quiet --run "$FIGURE_2/runs/model-$number" --data "$FIGURE_2/sft-$number.jsonl" \
    --prompts "$FIGURE_2/prompts-1.jsonl" --split-column split "${sft[@]}" $options
  ln -sfn "runs/model-$number/reference/sft/model" "$FIGURE_2/model-$number"  # the arms are named after it
done
activedpo experiment "figure-2-$name" "$@"
