#!/usr/bin/env bash
# Table A6: the factor tau by which PAN rescales a vector. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_a6 "$@" --report
