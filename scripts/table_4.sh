#!/usr/bin/env bash
# Table 4: beta, from only PAN (0) to only PUN (1).
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_4 --title "Table 4: beta" --paper 4 --baseline "CoOp+Nemesis (beta 0)" -- "$@"
