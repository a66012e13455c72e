#!/usr/bin/env bash
# Table 2: PLOT with and without Nemesis.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_2 --title "Table 2: PLOT" --paper 2 --baseline PLOT -- "$@"
