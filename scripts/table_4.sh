#!/usr/bin/env bash
# Table 4: beta, from only PAN (0) to only PUN (1). See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_4 "$@" --report
