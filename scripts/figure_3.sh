#!/usr/bin/env bash
# Figure 3: accuracy, that of prompts with a vector times FACTOR (0.5), and norm over epochs of CoOp and
# Nemesis with BETA (1.0, only PUN); EVERY (1) epochs between tested checkpoints. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
REPLACE="" RESCALE=${FACTOR-0.5} studied=(--over-epochs "${EVERY-1}")
study figure_3 figures_a2_a3 "$@" --grid TRAINER.NEMESIS.BETA "${BETA-1.0}"
