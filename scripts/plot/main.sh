#!/usr/bin/env bash
# Train PLOT: main.sh DATASET CFG CTP NCTX SHOTS CSC; see scripts/coop/main.sh.
TRAINER=${TRAINER-PLOT} exec bash "$(dirname "${BASH_SOURCE[0]}")/../coop/main.sh" "$@"
