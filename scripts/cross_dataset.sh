#!/usr/bin/env bash
# Train on all classes of one dataset, test on others (CoCoOp, section 4.2). See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
protocol cross_dataset "$@"
