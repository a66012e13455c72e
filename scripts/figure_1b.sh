#!/usr/bin/env bash
# Figure 1b: how often factors (RESCALE) improve CoOp's prompts, over shots. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
REPLACE="" RESCALE=${RESCALE-0.001 0.01 0.1 0.5}
study figure_1b low_norm "$@"
