#!/usr/bin/env bash
# Table A4: base-to-new generalisation of CoCoOp.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_a4 --title "Table A4: base to new classes" --paper a4 --baseline CoCoOp -- "$@"
