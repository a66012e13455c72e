#!/usr/bin/env bash
# Table A9: cost of a training step of PAN with N positions relative to CoOp.
# Settings: scripts/table.sh; further arguments go to nemesis bench, such as --device cuda.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
cost_table a9 "$@"
