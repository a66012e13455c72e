# Shared functions of the scripts for protocols and figures; sourced, not run. Needs bash 4.4.
#
# BENCH           profile: paper (default), or mini for the bundled benchmark
# DATA, OUTPUT    data root; folder of the runs and their table
# TRAINER, CONFIG method; its file in configs/trainers/TRAINER/ without .yaml, or a path to a .yaml
# OPTS            KEY VALUE pairs for every run, in addition to the script's arguments
# NAME            subfolder of OUTPUT for this setting; default: TRAINER, CONFIG and the pairs
# PYTHON, LOG     interpreter; file for the output of the runs (each run also has a log.txt)
#
# Lists (SEEDS, SHOTS, DATASETS, TARGETS, DOMAINS) are separated by spaces; a dataset is a file in
# configs/datasets/ without .yaml, or a path to a .yaml. Quote items of a list or OPTS with spaces:
#     OPTS='TRAINER.COOP.CTX_INIT "a photo of a"' scripts/few_shot.sh
# To add a row of zero-shot CLIP to the table, on the bundled benchmark or the papers' datasets:
#     BENCH=mini TRAINER=ZeroshotCLIP CONFIG=mini SHOTS=0 SEEDS=1 scripts/base_to_new.sh
#     TRAINER=ZeroshotCLIP CONFIG=vit_b16 SHOTS=0 SEEDS=1 scripts/base_to_new.sh
# Finished runs are skipped, so start a stopped or partly failed script again to resume it. Several
# scripts can run at once on different parts of the lists, such as one seed each.

((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || {
    echo "error: bash $BASH_VERSION is too old; use bash 4.4 or later" >&2
    exit 2
}
trap 'exit 130' INT

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
failed=()

# defaults BENCH NAME=VALUE...: for this profile, set the variables that the environment does not set.
defaults() {
    local entry
    [[ $BENCH == "$1" ]] || return 0
    for entry in "${@:2}"; do
        [[ -v ${entry%%=*} ]] || printf -v "${entry%%=*}" %s "${entry#*=}"
    done
}

# list NAME: split a variable's text into an array.
list() {
    local text
    text=$(xargs printf '%s\n' <<<"${!1}")
    unset "$1"
    declare -ga "$1=()"
    [[ -z $text ]] || mapfile -t "$1" <<<"$text"
}

# yaml_of FOLDER NAME: print the path of a file in configs/FOLDER; a path to a .yaml is unchanged.
yaml_of() {
    if [[ $2 == *.yaml ]]; then echo "$2"; else echo "$ROOT/configs/$1/$2.yaml"; fi
}

# stem PATH: print the file name without .yaml.
stem() { basename "$1" .yaml; }

# nemesis VERB ARGUMENT...: run a command in the repository's root.
nemesis() { (cd "$ROOT" && "$PYTHON" -m nemesis "$@"); }

finished() { grep -qs '"status": "finished"' "$1/results.json"; }

# begin CONFIG [ARGUMENT...]: set OPTS and RUNS; CONFIG and the arguments are part of RUNS' name.
begin() {
    local setting
    OPTS=${OPTS:-}
    list OPTS
    OPTS+=("${@:2}")
    setting="$TRAINER-$(stem "$1")${OPTS[*]:+-${OPTS[*]}}"
    RUNS=$OUTPUT/${NAME:-${setting//[^A-Za-z0-9._+-]/_}}
}

# run FOLDER DATASET CONFIG SEED [ARGUMENT...]: run train.py, resuming an interrupted run.
run() {
    if finished "$1"; then return; fi
    echo "$1"
    "$PYTHON" "$ROOT/train.py" --root "$DATA" --output-dir "$1" --trainer "$TRAINER" \
        --dataset-config-file "$(yaml_of datasets "$2")" \
        --config-file "$(yaml_of "trainers/$TRAINER" "$3")" \
        --seed "$4" "${@:5}" "${OPTS[@]}" >>"$LOG" || failed+=("$1")
}

# evaluate SOURCE FOLDER DATASET CONFIG SEED [ARGUMENT...]: test SOURCE's prompt, if finished.
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

# finish [CODE]: list failed runs; exit with 1 if there are any, else with CODE (0).
finish() {
    ((${#failed[@]})) || exit "${1:-0}"
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
}

# report PROTOCOL: write the table of all settings below OUTPUT, and list failed runs.
report() {
    local output=$OUTPUT code=0
    [[ $output == /* ]] || output=$PWD/$output
    (cd "$ROOT" && "$PYTHON" -m nemesis.report.protocols "$1" "$output"/*/ --output-dir "$output" \
        --seeds "${#SEEDS[@]}") || code=1
    finish "$code"
}

: "${BENCH:=paper}" "${DATA:=data}" "${LOG:=/dev/null}"
if [[ $BENCH != paper && $BENCH != mini ]]; then
    echo "error: BENCH is \"$BENCH\"; accepted: paper, mini" >&2
    exit 2
fi
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=$ROOT/.venv/bin/python
    [[ -x $PYTHON ]] || PYTHON=python3
fi
