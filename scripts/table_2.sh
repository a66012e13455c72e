#!/usr/bin/env bash
# Table 2: PLOT with and without Nemesis. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_2 "$@" --report
