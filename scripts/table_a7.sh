#!/usr/bin/env bash
# Table A7: the norm that PAN penalises. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_a7 "$@" --report
