#!/usr/bin/env bash
# Table A6: the factor tau by which PAN rescales a vector.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_a6 --title "Table A6: tau" --paper a6 --over-shots --baseline "CoOp+PAN (tau 0.5)" -- "$@"
