#!/usr/bin/env bash
# Domain generalisation: train on one dataset, test on the same classes in other styles (CoOp,
# section 4.2; Nemesis, Table 1). TARGETS are separate datasets, DOMAINS are styles of SOURCE.
# Settings: scripts/lib.sh. BENCH=mini uses the bundled benchmark.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

defaults paper TRAINER=CoOp CONFIG=rn50_ep50 SEEDS="1 2 3 4 5" SHOTS=16 \
    OUTPUT=output/domain_generalization SOURCE=imagenet DOMAINS="" \
    TARGETS="imagenetv2 imagenet_sketch imagenet_a imagenet_r"
# The classes are the same, so the bundled benchmark can use class-specific prompts.
defaults mini TRAINER=CoOp CONFIG=mini SEEDS="1 2 3" SHOTS=16 \
    OUTPUT=output/mini/domain_generalization SOURCE=emoji_activities TARGETS="" \
    DOMAINS="openmoji-black emojione-v1 fxemoji"
list SEEDS
list TARGETS
list DOMAINS
begin "$CONFIG" "$@"

transfer
report transfer
