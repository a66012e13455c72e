#!/usr/bin/env bash
# Table 3: PAN's number of positions N, with and without selection. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_3 "$@" --report
