# Shared functions of the scripts for tables, figures and protocols; sourced, not run.
#
# PROFILE                  paper (default); on the bundled benchmark mini, or mini_words, whose prompts
#                          are class-specific and start as words (tables only); BENCH is its earlier name
# BATCH                    runs trained as one batch (default 45 in the profile mini, else 1)
# DATA, OUTPUT             folders of the datasets (data) and of the runs (default: the sweep's)
# DATASETS, SHOTS, SEEDS   replace the sweep's; separated by spaces
# OPTS                     KEY VALUE pairs for every run, in addition to the script's arguments
# WORKERS, PYTHON          runs at a time (one per GPU, else per core); interpreter
# Protocols only: TRAINER, methods; CONFIG, a name as in configs/README.md; NAME, the row of one
# method; SOURCE, dataset to train on; TARGETS, datasets to test on; DOMAINS of SOURCE to test on.
#
# A dataset is a file of configs/datasets without .yaml, or a path to a .yaml. Quote items with spaces:
#     OPTS='TRAINER.COOP.CTX_INIT "a photo of a"' TRAINER="ZeroshotCLIP CoOp" scripts/few_shot.sh
# Arguments: KEY VALUE pairs, then flags of nemesis sweep such as --dry-run, --only NAME and --limit N.
# Exit codes: 0 done, 1 a run failed, 2 an error in the command, 130 stopped. The same call resumes.
set -euo pipefail
trap 'exit 130' INT
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -z ${PYTHON:-} && -x $ROOT/.venv/bin/python ]]; then PYTHON=$ROOT/.venv/bin/python; fi
: "${PYTHON:=python3}" "${PROFILE:=${BENCH:-paper}}"
flags=() studied=() failed=() default=output/paper
[[ $PROFILE == paper ]] || default=output/$PROFILE/paper
[[ $PROFILE != mini ]] || : "${BATCH:=45}"
reports=${OUTPUT:-$default}/tables

# refuse SENTENCE: exit because of an error in the command.
refuse() {
    echo "error: $1" >&2
    exit 2
}
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || refuse "bash $BASH_VERSION is older than 4.4"
[[ $PROFILE == @(paper|mini|mini_words) ]] ||
    refuse "the profile is \"$PROFILE\"; accepted: paper, mini, mini_words"

# finish: list what failed, and exit with 1 if anything did.
finish() {
    ((${#failed[@]})) || exit 0
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
}

# module NAME ARGUMENT...: run `python -m NAME` of this repository in the caller's folder.
module() {
    "$PYTHON" -c 'import runpy, sys; sys.path.insert(0, sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)' "$ROOT" "$@"
}

# nemesis VERB ARGUMENT...: run `python -m nemesis VERB` likewise.
nemesis() {
    module nemesis "$@"
}

# words NAME [DEFAULT...]: set WORDS to the words of a variable, or to the DEFAULTs if it is unset.
words() {
    local text
    WORDS=("${@:2}")
    [[ -v $1 ]] || return 0
    text=$(xargs printf '%s\n' <<<"${!1}" 2>/dev/null) || refuse "$1 has an unmatched quote: ${!1}"
    WORDS=()
    [[ -z $text ]] || mapfile -t WORDS <<<"$text"
}

# flag FLAG NAME: add FLAG with the words of a variable, if it is set.
flag() {
    words "$2"
    if [[ -v $2 ]]; then flags+=("$1" "${WORDS[@]}"); fi
}

# settings ARGUMENT...: add OPTS and the leading KEY VALUE pairs to the flags, then the other ARGUMENTs.
settings() {
    words OPTS
    set -- "${WORDS[@]}" "$@"
    while (($# > 1)) && [[ $1 != -* && $2 != --* ]]; do
        flags+=(--set "$1" "$2")
        shift 2
    done
    flags+=("$@")
}

# sweep NAME ARGUMENT...: run configs/sweeps/NAME.yaml with the variables and the script's arguments.
sweep() {
    local name=$1
    flags+=(--profile "$PROFILE" ${OUTPUT:+--output-dir "$OUTPUT"} ${DATA:+--root "$DATA"}
        ${WORKERS:+--workers "$WORKERS"} ${BATCH:+--batch "$BATCH"})
    flag --datasets DATASETS
    flag --shots SHOTS
    flag --seeds SEEDS
    settings "${@:2}"
    nemesis sweep "$name" "${flags[@]}"
}

# protocol NAME ARGUMENT...: run a sweep with the variables of protocols, and report it.
protocol() {
    words TRAINER
    [[ -z ${NAME:-} || ${#WORDS[@]} -ne 1 ]] || WORDS[0]=$NAME=${WORDS[0]}
    flags+=(${WORDS[0]:+--methods "${WORDS[@]}"} ${CONFIG:+--config "$CONFIG"})
    [[ -z ${SOURCE:-} ]] || DATASETS="\"$SOURCE\""
    flag --targets TARGETS
    flag --domains DOMAINS
    sweep "$@" --report
}

# finished_runs NAME ARGUMENT...: run a sweep; RUNS are then the folders of its finished runs, and CODE
# is 1 if others failed. Exits after --dry-run or --help, and if no run is finished.
finished_runs() {
    CODE=0
    sweep "$@" || CODE=$?
    [[ $CODE -lt 2 && " $* " != *\ --@(dry-run|help)\ * ]] || exit "$CODE"
    mapfile -t RUNS < <(nemesis sweep "$1" "${flags[@]}" --folders)
    [[ ${RUNS[*]} ]] || exit 1
}

# study NAME SWEEP ARGUMENT...: run a sweep, then nemesis low-norm on its finished runs with REPLACE,
# RESCALE and the flags in `studied`; the tables and figures are in tables/NAME.
study() {
    finished_runs "${@:2}"
    flags=("${studied[@]}" ${DATA:+--root "$DATA"} --output-dir "$reports/$1")
    flag --replace REPLACE
    flag --rescale RESCALE
    nemesis low-norm "${RUNS[@]}" "${flags[@]}" || CODE=1
    exit "$CODE"
}

# cost_table KEY ARGUMENT...: measure a table of costs with the ARGUMENTs of nemesis bench.
cost_table() {
    [[ $PROFILE == paper ]] || flags=(--backbones mini --classes 10 47 100)
    nemesis bench --table "$1" "${flags[@]}" --output-dir "$reports/table_$1" "${@:2}"
}
