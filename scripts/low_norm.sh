# Shared functions of the Low-Norm Effect's scripts; sourced, not run. lib.sh documents the variables
# BENCH, DATA, OUTPUT, DATASETS, SHOTS, SEEDS, OPTS, PYTHON and LOG.

source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

defaults paper OUTPUT=output/low_norm SHOTS="1 2 4 8 16" SEEDS="1 2 3 4 5" \
    DATASETS="imagenet caltech101 oxford_pets stanford_cars oxford_flowers food101 fgvc_aircraft
              sun397 dtd eurosat ucf101"
defaults mini OUTPUT=output/mini/low_norm SHOTS="1 4" SEEDS="1 2" \
    DATASETS="emoji_activities emoji_food"
list DATASETS
list SHOTS
list SEEDS
: "${OPTS=}"
list OPTS
if [[ $BENCH == mini ]]; then OPTS=(INPUT.TRAIN_VIEWS 4 "${OPTS[@]}"); fi
[[ $OUTPUT == /* ]] || OUTPUT=$PWD/$OUTPUT
[[ $DATA == /* ]] || DATA=$PWD/$DATA

# config_of DATASET SHOTS: print the config with 16 generic vectors and the papers' epochs.
config_of() {
    if [[ $BENCH == mini ]]; then echo mini_ctx16
    elif [[ $1 == imagenet || $2 == 1 ]]; then echo rn50_ep50
    elif [[ $2 == 2 || $2 == 4 ]]; then echo rn50_ep100
    else echo rn50; fi
}

# train METHOD TRAINER [KEY VALUE ...]: train the method on all datasets, shots and seeds.
train() {
    local dataset shots seed TRAINER=$2
    for dataset in "${DATASETS[@]}"; do for shots in "${SHOTS[@]}"; do for seed in "${SEEDS[@]}"; do
        run "$OUTPUT/$1/$(stem "$dataset")/shots_$shots/seed$seed" "$dataset" \
            "$(config_of "$dataset" "$shots")" "$seed" DATASET.NUM_SHOTS "$shots" "${@:3}"
    done; done; done
}

# project_python ARGUMENT...: run Python in the repository's root.
project_python() { (cd "$ROOT" && "$PYTHON" "$@"); }
