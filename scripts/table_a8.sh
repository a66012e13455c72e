#!/usr/bin/env bash
# Table A8: cost of a training step of PUN, PAN and PLOT relative to CoOp.
# Settings: scripts/table.sh; further arguments go to nemesis bench, such as --device cuda.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
cost_table a8 "$@"
