#!/usr/bin/env bash
# Cross-dataset transfer: train on all classes of one dataset, test on others (CoCoOp, section 4.2).
# Settings: scripts/lib.sh. BENCH=mini uses the bundled benchmark.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

defaults paper TRAINER=CoCoOp CONFIG=vit_b16_c4_ep10_batch1_ctxv1 SEEDS="1 2 3 4 5" SHOTS=16 \
    OUTPUT=output/cross_dataset SOURCE=imagenet DOMAINS="" \
    TARGETS="caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft sun397 dtd
             eurosat ucf101"
defaults mini TRAINER=CoOp CONFIG=mini_generic SEEDS="1 2 3" SHOTS=16 \
    OUTPUT=output/mini/cross_dataset SOURCE=emoji_activities DOMAINS="" \
    TARGETS="emoji_animals emoji_food emoji_smileys"
list SEEDS
list TARGETS
list DOMAINS
begin "$CONFIG" "$@"

transfer
report transfer
