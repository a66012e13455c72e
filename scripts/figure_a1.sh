#!/usr/bin/env bash
# Figure A1: accuracy and norm with each position of CoOp's prompts corrupted, on one dataset.
# low_norm.sh says what the environment may set; REPLACE and RESCALE are the values.
set -euo pipefail
if [[ ${BENCH:-paper} == mini ]]; then : "${DATASETS:=emoji_activities}"; fi
: "${DATASETS:=caltech101}" "${SHOTS:=1}"
source "$(dirname "$0")/low_norm.sh"

train CoOp CoOp
for dataset in $DATASETS; do for shots in $SHOTS; do
    # shellcheck disable=SC2086 # lists
    "$PYTHON" corrupt.py "$OUTPUT/CoOp/$dataset/shots_$shots" --root "$DATA" \
        --output "$OUTPUT/figure_a1" \
        --replace ${REPLACE-0 0.001 0.01 0.1 0.5} --rescale ${RESCALE-0.001 0.01 0.1 0.5 2}
done; done
