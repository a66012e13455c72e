#!/usr/bin/env bash
# Figure 2: accuracy over shots of CoOp, PUN and PAN, from runs of Table A5. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep figure_2 "$@" --report
