#!/usr/bin/env bash
# Table A5: few-shot learning with three strengths of PUN and PAN.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_a5 --title "Table A5: few-shot learning" --paper a5 -- "$@"
