# What the scripts for single runs share, named as in CoOp's, CoCoOp's and PLOT's repositories;
# sourced, not run. Finished runs are skipped; an interrupted one goes on.
#
# DATA, OUTPUT   folder of the datasets (data); folder of the runs (output)
# TRAINER        method, such as CoOpNemesis; scripts/nemesis.sh chooses PUN or PAN
# SEEDS          of the scripts that loop over them; 1 2 3
# CFG, SHOTS     of the scripts that do not take them as arguments
# OPTS           KEY VALUE pairs for every run
#
# Arguments behind the named ones go to train.py, flags first, and are part of the folder's name.

: "${LOG=/dev/stdout}" "${OUTPUT=output}" "${SEEDS=1 2 3}"
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
list SEEDS
: "${OPTS=}"
list OPTS

# take NAME... -- [ARGUMENT...]: give the script's arguments their names; EXTRA are the others.
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
    need datasets "$DATASET"
    need "trainers/$TRAINER" "$CFG"
}

# need FOLDER NAME: a file of configs/FOLDER that has to be there.
need() {
    local file
    file=$(yaml_of "$1" "$2")
    if [[ ! -f $file ]]; then
        echo "error: $2 is none of configs/$1 ($file does not exist)" >&2
        exit 2
    fi
}

# prompts: CoOp's settings of the prompts as KEY VALUE pairs, from CTP, NCTX and CSC.
prompts() {
    local node=${TRAINER%Nemesis}
    node=TRAINER.${node^^}
    PROMPTS=("$node.N_CTX" "$NCTX" "$node.CSC" "$CSC" "$node.CLASS_TOKEN_POSITION" "$CTP")
    SETTING=${CFG##*/}_${SHOTS}shots$SUFFIX/nctx${NCTX}_csc${CSC}_ctp$CTP
}

# source_of FOLDER: refuse to test a run that is not finished.
source_of() {
    if ! finished "$1"; then
        echo "error: $1 holds no finished run to test; train it first" >&2
        exit 2
    fi
}
