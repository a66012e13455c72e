#!/usr/bin/env bash
# Train on one dataset, test on its classes in other styles (CoOp, section 4.2). See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
protocol domain_generalization "$@"
