# Shared functions of the scripts for the paper's tables (docs/tables.md); sourced, not run.
#
# BENCH    profile: paper (default), or mini for the bundled benchmark
# DATA     data root
# OUTPUT   folder of the runs, shared by the tables; a table is written to OUTPUT/tables/NAME
# WORKERS  concurrent runs; default: one per GPU, or one per core without GPUs
# PYTHON   interpreter
#
# Further arguments go to nemesis sweep: --dry-run, --set KEY VALUE, --only NAME, --limit N, --cluster ...
# Start a stopped or partly failed script again to resume it.

data=(${DATA:+--root "$DATA"})
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
defaults paper OUTPUT=output/paper
defaults mini OUTPUT=output/mini/paper

# table NAME [FLAG...] -- [ARGUMENT...]: run a sweep with the ARGUMENTs of nemesis sweep, then report its
# finished runs with the FLAGs of nemesis report.
table() {
    local sweep="$ROOT/configs/sweeps/$1.yaml" code=0 report=() shared=(--bench "$BENCH" "${data[@]}")
    shift
    while [[ $1 != -- ]]; do report+=("$1"); shift; done
    shift
    nemesis sweep "$sweep" "${shared[@]}" --output-dir "$OUTPUT" \
        ${WORKERS:+--workers "$WORKERS"} "$@" || code=$?
    ((code < 2)) || exit "$code"
    while (($#)); do
        case $1 in
            --dry-run | --help | -h) exit "$code" ;;
            --set) shared+=("${@:1:3}") ;;
        esac
        shift
    done
    nemesis report "$OUTPUT" --sweep "$sweep" "${shared[@]}" "${report[@]}" || code=1
    exit "$code"
}

# cost_table KEY [ARGUMENT...]: measure a table of costs with the ARGUMENTs of nemesis bench.
cost_table() {
    local size=()
    if [[ $BENCH == mini ]]; then size=(--backbones mini --classes 10 47 100); fi
    nemesis bench --table "$1" "${size[@]}" \
        --output-dir "$OUTPUT/tables/table_$1" "${@:2}"
}
