# What the scripts of protocols and figures share; sourced, not run. Needs bash 4.4.
#
# BENCH           paper (default), or mini: the bundled benchmark
# DATA, OUTPUT    folder of the datasets; folder of the runs and of their table
# TRAINER, CONFIG method; its file in configs/trainers/TRAINER/, without .yaml, or a path to a .yaml
# OPTS            KEY VALUE pairs for every run, as are the script's own arguments
# NAME            folder of this setting below OUTPUT; default: TRAINER, CONFIG and the pairs
# PYTHON, LOG     interpreter; file for what the runs print (each has its own log.txt, too)
#
# Lists (SEEDS, SHOTS, DATASETS, TARGETS, DOMAINS) are separated by spaces; a dataset is a file of
# configs/datasets/, without .yaml, or a path to a .yaml. Quotes within a list or OPTS keep spaces:
#     OPTS='TRAINER.COOP.CTX_INIT "a photo of a"' scripts/few_shot.sh
# A row of zero-shot CLIP in the same table, with bundled data and without:
#     BENCH=mini TRAINER=ZeroshotCLIP CONFIG=mini SHOTS=0 SEEDS=1 scripts/base_to_new.sh
#     TRAINER=ZeroshotCLIP CONFIG=vit_b16 SHOTS=0 SEEDS=1 scripts/base_to_new.sh
# Finished runs are skipped, so a script that was stopped, or some of whose runs failed, goes on
# when it is started again. Several may run at once on parts of the lists, such as one seed each.

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "error: bash $BASH_VERSION is too old; the scripts need 4.4 or later" >&2
    exit 2
}
trap 'exit 130' INT

HOUSE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
failed=()

# defaults BENCH NAME=VALUE...: for that benchmark, set what the environment leaves open.
defaults() {
    local entry
    [[ $BENCH == "$1" ]] || return 0
    for entry in "${@:2}"; do
        [[ -v ${entry%%=*} ]] || printf -v "${entry%%=*}" %s "${entry#*=}"
    done
}

# list NAME: turn a variable's text into an array of its words.
list() {
    local text
    text=$(xargs printf '%s\n' <<<"${!1}")
    unset "$1"
    declare -ga "$1=()"
    [[ -z $text ]] || mapfile -t "$1" <<<"$text"
}

# yaml_of FOLDER NAME: the path of a file of configs/FOLDER; a path to a .yaml stays as it is.
yaml_of() {
    if [[ $2 == *.yaml ]]; then echo "$2"; else echo "$HOUSE/configs/$1/$2.yaml"; fi
}

# stem PATH: a name for folders.
stem() { basename "$1" .yaml; }

finished() { grep -qs '"status": "finished"' "$1/results.json"; }

# begin CONFIG [ARGUMENT...]: read the settings; CONFIG and the script's arguments name the folder.
begin() {
    local setting
    OPTS=${OPTS:-}
    list OPTS
    OPTS+=("${@:2}")
    setting="$TRAINER-$(stem "$1")${OPTS[*]:+-${OPTS[*]}}"
    RUNS=$OUTPUT/${NAME:-${setting//[^A-Za-z0-9._+-]/_}}
}

# run FOLDER DATASET CONFIG SEED [ARGUMENT...]: one run of train.py; an interrupted one goes on.
run() {
    if finished "$1"; then return; fi
    echo "$1"
    "$PYTHON" "$HOUSE/train.py" --root "$DATA" --output-dir "$1" --trainer "$TRAINER" \
        --dataset-config-file "$(yaml_of datasets "$2")" \
        --config-file "$(yaml_of "trainers/$TRAINER" "$3")" \
        --seed "$4" "${@:5}" "${OPTS[@]}" >>"$LOG" || failed+=("$1")
}

# evaluate SOURCE FOLDER DATASET CONFIG SEED [ARGUMENT...]: test SOURCE's prompt, if there is one.
evaluate() {
    if finished "$1"; then run "${@:2:4}" --eval-only --model-dir "$1" "${@:6}"; fi
}

# transfer: train on all classes of SOURCE; test on TARGETS, and on other DOMAINS of SOURCE.
transfer() {
    local folder seed target domain
    folder=$RUNS/$(stem "$SOURCE")/shots_$SHOTS
    for seed in "${SEEDS[@]}"; do
        run "$folder/train/seed$seed" "$SOURCE" "$CONFIG" "$seed" DATASET.NUM_SHOTS "$SHOTS"
        for target in "${TARGETS[@]}"; do
            evaluate "$folder/train/seed$seed" "$folder/test_$(stem "$target")/seed$seed" \
                "$target" "$CONFIG" "$seed"
        done
        for domain in "${DOMAINS[@]}"; do
            evaluate "$folder/train/seed$seed" "$folder/test_$domain/seed$seed" \
                "$SOURCE" "$CONFIG" "$seed" DATASET.TARGET_DOMAINS "['$domain']"
        done
    done
}

# finish [CODE]: say what failed; the exit code is 1 if anything did, else CODE (0).
finish() {
    ((${#failed[@]})) || exit "${1:-0}"
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
}

# report PROTOCOL: write the table of all settings below OUTPUT, and say what failed.
report() {
    local output=$OUTPUT code=0
    [[ $output == /* ]] || output=$PWD/$output
    (cd "$HOUSE" && "$PYTHON" -m analysis.protocols "$1" "$output"/*/ --output-dir "$output" \
        --seeds "${#SEEDS[@]}") || code=1
    finish "$code"
}

: "${BENCH:=paper}" "${DATA:=data}" "${LOG:=/dev/null}"
if [[ $BENCH != paper && $BENCH != mini ]]; then
    echo "error: BENCH is \"$BENCH\"; accepted: paper, mini" >&2
    exit 2
fi
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$HOUSE/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python3
fi
