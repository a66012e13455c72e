# Shared functions of the scripts for single runs, which have the names, the arguments and the folders of
# CoOp's, CoCoOp's and PLOT's repositories; sourced, not run. Finished runs are skipped, others resume.
#
# DATA, OUTPUT (output), SEEDS (1 2 3), OPTS, PYTHON   see scripts/lib.sh
# TRAINER, CFG, SHOTS (16)   for scripts that do not take them as arguments; see scripts/nemesis.sh
# LOG                        file for the output of train.py
#
# Further arguments go to train.py and are part of the folder's name.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# take TRAINER NAME... -- ARGUMENT...: assign the script's arguments to the names, the others to EXTRA.
take() {
    local names=() name
    : "${TRAINER=$1}" "${OUTPUT:=output}" "${SEEDS=1 2 3}" "${SHOTS=16}" \
        "${CFG=vit_b16_c4_ep10_batch1_ctxv1}"
    while shift && [[ $1 != -- ]]; do names+=("$1"); done
    shift
    (($# >= ${#names[@]})) || refuse "$0 got $# arguments, but takes ${#names[@]}: ${names[*]}"
    for name in "${names[@]}"; do
        printf -v "$name" %s "$1"
        shift
    done
    EXTRA=("$@")
    SUFFIX=${EXTRA[*]:+-${EXTRA[*]}}
    SUFFIX=${SUFFIX//[^A-Za-z0-9._+-]/_}
    D=$(basename "$DATASET" .yaml)
}

# prompts: set PROMPTS to KEY VALUE pairs from CTP, NCTX and CSC, and SETTING to the folder's name.
prompts() {
    local node=${TRAINER%Nemesis}
    node=TRAINER.${node^^}
    PROMPTS=("$node.N_CTX" "$NCTX" "$node.CSC" "$CSC" "$node.CLASS_TOKEN_POSITION" "$CTP")
    SETTING=$TRAINER/${CFG##*/}_${SHOTS}shots$SUFFIX/nctx${NCTX}_csc${CSC}_ctp$CTP
}

finished() { grep -qs '"status": "finished"' "$1/results.json"; }

# run SEED FOLDER ARGUMENT...: run train.py with its output in FOLDER below OUTPUT.
run() {
    local folder=$OUTPUT/$2 code=0
    if finished "$folder"; then return; fi
    echo "$folder"
    words OPTS
    "$PYTHON" "$ROOT/train.py" --root "${DATA:-data}" --output-dir "$folder" --trainer "$TRAINER" \
        --dataset-config-file "$DATASET" --config-file "$CFG" --seed "$1" "${EXTRA[@]}" "${@:3}" \
        "${WORDS[@]}" >>"${LOG:-/dev/stdout}" || code=$?
    ((code < 2)) || exit "$code"
    ((code == 0)) || failed+=("$folder")
}

# seeds MODEL FOLDER ARGUMENT...: train with every seed, or test the runs in MODEL if it is not empty.
seeds() {
    local seed model
    words SEEDS
    for seed in "${WORDS[@]}"; do
        model=${1:+$OUTPUT/$1/seed$seed}
        [[ -z $model ]] || finished "$model" || refuse "$model contains no finished run to test; train it first"
        run "$seed" "$2/seed$seed" ${model:+--eval-only --model-dir "$model"} "${@:3}"
    done
    finish
}
