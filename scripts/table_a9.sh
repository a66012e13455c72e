#!/usr/bin/env bash
# Table A9: cost of a step of PAN with N positions relative to CoOp; arguments go to nemesis bench.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cost_table a9 "$@"
