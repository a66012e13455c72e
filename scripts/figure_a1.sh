#!/usr/bin/env bash
# Figure A1: accuracy and norm for each corrupted position (REPLACE, RESCALE) on one dataset. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
study figure_a1 figure_a1 "$@"
