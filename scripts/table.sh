# What the scripts of the paper's tables share; sourced, not run. docs/tables.md lists them.
#
# BENCH    paper (default), or mini: the bundled benchmark
# DATA     folder of the datasets
# OUTPUT   folder of the runs, which the tables share; a table goes to OUTPUT/tables/NAME
# WORKERS  runs at a time; default: one per GPU, or per core without
# PYTHON   interpreter
#
# Further arguments go to sweep.py: --dry-run, --set KEY VALUE, --only NAME, --limit N, --cluster ...
# A script that was stopped, or some of whose runs failed, goes on when it is started again.

data=(${DATA:+--root "$DATA"})
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
defaults paper OUTPUT=output/paper
defaults mini OUTPUT=output/mini/paper

# table NAME [FLAG...] -- [ARGUMENT...]: the runs of a sweep, with the ARGUMENTs of sweep.py; then
# its report, with the FLAGs of report.py, of whatever is there.
table() {
    local sweep="$HOUSE/configs/sweeps/$1.yaml" code=0 report=() shared=(--bench "$BENCH" "${data[@]}")
    shift
    while [[ $1 != -- ]]; do report+=("$1"); shift; done
    shift
    "$PYTHON" "$HOUSE/sweep.py" "$sweep" "${shared[@]}" --output-dir "$OUTPUT" \
        ${WORKERS:+--workers "$WORKERS"} "$@" || code=$?
    ((code < 2)) || exit "$code"
    while (($#)); do
        case $1 in
            --dry-run | --help | -h) exit "$code" ;;
            --set) shared+=("${@:1:3}") ;;
        esac
        shift
    done
    "$PYTHON" "$HOUSE/report.py" "$OUTPUT" --sweep "$sweep" "${shared[@]}" "${report[@]}" || code=1
    exit "$code"
}

# cost_table KEY [ARGUMENT...]: a table of costs, with the ARGUMENTs of bench.py.
cost_table() {
    local size=()
    if [[ $BENCH == mini ]]; then size=(--backbones mini --classes 10 47 100); fi
    exec "$PYTHON" "$HOUSE/bench.py" --table "$1" "${size[@]}" \
        --output-dir "$OUTPUT/tables/table_$1" "${@:2}"
}
