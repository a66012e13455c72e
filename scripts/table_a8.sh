#!/usr/bin/env bash
# Table A8: cost of a step of PUN, PAN and PLOT relative to CoOp; arguments go to nemesis bench.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cost_table a8 "$@"
