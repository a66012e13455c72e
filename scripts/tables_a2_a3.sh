#!/usr/bin/env bash
# Tables A2 and A3: how many positions REPLACE and RESCALE improve. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
study tables_a2_a3 low_norm "$@"
