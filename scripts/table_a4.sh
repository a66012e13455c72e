#!/usr/bin/env bash
# Table A4: base-to-new generalisation of CoCoOp. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_a4 "$@" --report
