# What the Low-Norm Effect's scripts share; sourced, not run.
#
# BENCH           paper (default: RN50, 16 generic tokens), or mini: the bundled benchmark, minutes
# DATA, OUTPUT    folder of the datasets; folder of the runs, and of tables and figures
# DATASETS        files of configs/datasets/, without .yaml; lists are separated by spaces
# SHOTS, SEEDS    numbers
# OPTS            KEY VALUE pairs for every run
# PYTHON          interpreter
#
# Finished runs and what has been tested are kept, so a script that was stopped goes on.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${BENCH:=paper}" "${DATA:=data}" "${OPTS:=}" "${PYTHON:=.venv/bin/python}"
case $BENCH in
    paper)
        : "${DATASETS:=caltech101 dtd eurosat fgvc_aircraft food101 imagenet oxford_flowers oxford_pets stanford_cars sun397 ucf101}"
        : "${SHOTS:=1 2 4 8 16}" "${SEEDS:=1 2 3 4 5}"
        ;;
    mini)
        : "${DATASETS:=emoji_activities emoji_food}" "${SHOTS:=1 4}" "${SEEDS:=1 2}"
        OPTS="INPUT.TRAIN_VIEWS 4 $OPTS"
        ;;
    *)
        echo "error: BENCH is \"$BENCH\"; accepted: paper, mini" >&2
        exit 2
        ;;
esac
: "${OUTPUT:=output/low_norm_$BENCH}"

# config_of DATASET SHOTS: the method's settings; more shots take more epochs, ImageNet always 50.
config_of() {
    if [[ $BENCH == mini ]]; then echo mini_ctx16
    elif [[ $1 == imagenet || $2 == 1 ]]; then echo rn50_ep50
    elif [[ $2 == 2 || $2 == 4 ]]; then echo rn50_ep100
    else echo rn50; fi
}

# train METHOD TRAINER [KEY VALUE ...]: the method's runs on all datasets, shots and seeds.
train() {
    local dataset shots seed
    for dataset in $DATASETS; do for shots in $SHOTS; do for seed in $SEEDS; do
        local run=$OUTPUT/$1/$dataset/shots_$shots/seed$seed
        if grep -qs '"status": "finished"' "$run/results.json"; then continue; fi
        # shellcheck disable=SC2086 # OPTS is a list
        "$PYTHON" train.py --root "$DATA" --output-dir "$run" --trainer "$2" --seed "$seed" \
            --dataset-config-file "configs/datasets/$dataset.yaml" \
            --config-file "configs/trainers/$2/$(config_of "$dataset" "$shots").yaml" \
            DATASET.NUM_SHOTS "$shots" $OPTS "${@:3}"
    done; done; done
}
