#!/usr/bin/env bash
# Table A5: few-shot learning with three strengths of PUN and PAN. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_a5 "$@" --report
