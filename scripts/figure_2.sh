#!/usr/bin/env bash
# Figure 2: accuracy over shots of CoOp, PUN and PAN, from runs of Table A5.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table figure_2 --title "Figure 2: accuracy over shots" --paper a5 -- "$@"
