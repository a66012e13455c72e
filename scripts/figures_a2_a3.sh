#!/usr/bin/env bash
# Figures A2 and A3: loss, accuracy, norms and selections over epochs of CoOp and Nemesis with BETAS (1.0
# 0.0); EVERY (1) epochs between tested checkpoints. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
REPLACE="" RESCALE="" studied=(--over-epochs "${EVERY-1}")
words BETAS 1.0 0.0
study figures_a2_a3 figures_a2_a3 "$@" --grid TRAINER.NEMESIS.BETA "${WORDS[@]}"
