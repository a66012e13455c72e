#!/usr/bin/env bash
# Tables A2 and A3: at how many positions of CoOp's prompts REPLACE and RESCALE raise the accuracy.
# Settings: scripts/low_norm.sh; REPLACE and RESCALE are the lists of values.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/low_norm.sh"
: "${REPLACE=0 0.001 0.01 0.1 0.5}" "${RESCALE=0.001 0.01 0.1 0.5 2}"
list REPLACE
list RESCALE

train CoOp CoOp
house corrupt.py "$OUTPUT/CoOp" --root "$DATA" --output "$OUTPUT/tables_a2_a3" \
    --replace "${REPLACE[@]}" --rescale "${RESCALE[@]}" || failed+=(corrupt.py)
finish
