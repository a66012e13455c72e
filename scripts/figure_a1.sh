#!/usr/bin/env bash
# Figure A1: accuracy and norm for each corrupted position of CoOp's prompts, on one dataset.
# Settings: scripts/low_norm.sh; REPLACE and RESCALE list the values.
set -euo pipefail
: "${SHOTS=1}"
if [[ ${BENCH:-paper} == mini ]]; then : "${DATASETS=emoji_activities}"; fi
: "${DATASETS=caltech101}"
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
: "${REPLACE=0 0.001 0.01 0.1 0.5}" "${RESCALE=0.001 0.01 0.1 0.5 2}"
list REPLACE
list RESCALE

train CoOp CoOp
project_python -m nemesis low-norm "$OUTPUT/CoOp" --root "$DATA" --output "$OUTPUT/figure_a1" \
    --replace "${REPLACE[@]}" --rescale "${RESCALE[@]}" || failed+=(nemesis low-norm)
finish
