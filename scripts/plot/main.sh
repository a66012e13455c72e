#!/usr/bin/env bash
# Train PLOT few-shot: main.sh DATASET CFG CTP NCTX SHOTS CSC; see scripts/coop/main.sh.
set -euo pipefail
TRAINER=${TRAINER-PLOT} exec bash "$(dirname "${BASH_SOURCE[0]}")/../coop/main.sh" "$@"
