# Shared functions of the scripts for single runs, which have the names of CoOp's, CoCoOp's and
# PLOT's repositories; sourced, not run. Finished runs are skipped, interrupted runs resume.
#
# DATA, OUTPUT   data root (data); folder of the runs (output)
# TRAINER        method, such as CoOpNemesis; scripts/nemesis.sh selects PUN or PAN
# SEEDS          seeds of the scripts that loop over them; 1 2 3
# CFG, SHOTS     for scripts that do not take them as arguments
# OPTS           KEY VALUE pairs for every run
#
# Further arguments go to train.py, flags first, and are part of the folder's name.

: "${LOG=/dev/stdout}" "${OUTPUT=output}" "${SEEDS=1 2 3}"
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
list SEEDS
: "${OPTS=}"
list OPTS

# take NAME... -- [ARGUMENT...]: assign the script's arguments to the names, the others to EXTRA.
take() {
    local names=() name
    while [[ $1 != -- ]]; do names+=("$1"); shift; done
    shift
    if (($# < ${#names[@]})); then
        echo "error: $0 got $# arguments, but takes ${#names[@]}: ${names[*]}" >&2
        exit 2
    fi
    for name in "${names[@]}"; do
        printf -v "$name" %s "$1"
        shift
    done
    EXTRA=("$@")
    SUFFIX=${EXTRA[*]:+-${EXTRA[*]}}
    SUFFIX=${SUFFIX//[^A-Za-z0-9._+-]/_}
    require_config datasets "$DATASET"
    require_config "trainers/$TRAINER" "$CFG"
}

# require_config FOLDER NAME: exit if the file does not exist in configs/FOLDER.
require_config() {
    local file
    file=$(yaml_of "$1" "$2")
    if [[ ! -f $file ]]; then
        echo "error: $2 is not a file of configs/$1 ($file does not exist)" >&2
        exit 2
    fi
}

# prompts: set PROMPTS, KEY VALUE pairs from CTP, NCTX and CSC, and SETTING, the folder's name.
prompts() {
    local node=${TRAINER%Nemesis}
    node=TRAINER.${node^^}
    PROMPTS=("$node.N_CTX" "$NCTX" "$node.CSC" "$CSC" "$node.CLASS_TOKEN_POSITION" "$CTP")
    SETTING=${CFG##*/}_${SHOTS}shots$SUFFIX/nctx${NCTX}_csc${CSC}_ctp$CTP
}

# require_finished FOLDER: exit if the run to test is not finished.
require_finished() {
    if ! finished "$1"; then
        echo "error: $1 contains no finished run to test; train it first" >&2
        exit 2
    fi
}
