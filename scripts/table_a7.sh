#!/usr/bin/env bash
# Table A7: the norm that PAN penalises.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_a7 --title "Table A7: norm" --paper a7 --over-shots --baseline "CoOp+PAN (norm two)" -- "$@"
