#!/usr/bin/env bash
# Figure 1b: how often smaller norms raise the accuracy of CoOp's prompts, over the shots.
# Settings: scripts/low_norm.sh; RESCALE is the list of factors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
: "${RESCALE=0.001 0.01 0.1 0.5}"
list RESCALE

train CoOp CoOp
house corrupt.py "$OUTPUT/CoOp" --root "$DATA" --output "$OUTPUT/figure_1b" \
    --replace --rescale "${RESCALE[@]}" || failed+=(corrupt.py)
finish
