#!/usr/bin/env bash
# Train on half of the classes, test on both halves (CoCoOp, section 4.1). See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
protocol base_to_new "$@"
