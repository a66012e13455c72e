#!/usr/bin/env bash
# Figure 1b: how often smaller norms improve the accuracy of CoOp's prompts, over shots.
# Settings: scripts/low_norm.sh; RESCALE lists the factors.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
: "${RESCALE=0.001 0.01 0.1 0.5}"
list RESCALE

train CoOp CoOp
project_python -m nemesis low-norm "$OUTPUT/CoOp" --root "$DATA" --output "$OUTPUT/figure_1b" \
    --replace --rescale "${RESCALE[@]}" || failed+=(nemesis low-norm)
finish
