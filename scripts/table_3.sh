#!/usr/bin/env bash
# Table 3: PAN's number of positions N, with and without selection.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_3 --title "Table 3: PAN's positions and selection" --paper 3 -- "$@"
