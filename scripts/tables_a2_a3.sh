#!/usr/bin/env bash
# Tables A2 and A3: number of positions of CoOp's prompts where REPLACE and RESCALE improve accuracy.
# Settings: scripts/low_norm.sh; REPLACE and RESCALE list the values.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
: "${REPLACE=0 0.001 0.01 0.1 0.5}" "${RESCALE=0.001 0.01 0.1 0.5 2}"
list REPLACE
list RESCALE

train CoOp CoOp
project_python -m nemesis low-norm "$OUTPUT/CoOp" --root "$DATA" --output "$OUTPUT/tables_a2_a3" \
    --replace "${REPLACE[@]}" --rescale "${RESCALE[@]}" || failed+=(nemesis low-norm)
finish
