#!/usr/bin/env bash
# Tables A2 and A3: at how many positions of CoOp's prompts REPLACE and RESCALE raise the accuracy.
# low_norm.sh says what the environment may set; REPLACE and RESCALE are the values.
set -euo pipefail
source "$(dirname "$0")/low_norm.sh"

train CoOp CoOp
# shellcheck disable=SC2086 # lists
"$PYTHON" corrupt.py "$OUTPUT/CoOp" --root "$DATA" --output "${TABLES:-$OUTPUT/tables_a2_a3}" \
    --replace ${REPLACE-0 0.001 0.01 0.1 0.5} --rescale ${RESCALE-0.001 0.01 0.1 0.5 2}
