#!/usr/bin/env bash
# Figure 1b: how often smaller norms raise the accuracy of CoOp's prompts, over the shots.
# low_norm.sh says what the environment may set; RESCALE is the list of factors.
set -euo pipefail
source "$(dirname "$0")/low_norm.sh"

train CoOp CoOp
# shellcheck disable=SC2086 # a list
"$PYTHON" corrupt.py "$OUTPUT/CoOp" --root "$DATA" --output "$OUTPUT/figure_1b" \
    --replace --rescale ${RESCALE:-0.001 0.01 0.1 0.5}
