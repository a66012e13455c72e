#!/usr/bin/env bash
# Every table and figure of the paper, one after the other; what fails does not stop the others.
# TABLES chooses some. Settings and further arguments: scripts/table.sh for tables of accuracy and
# Figure 2; the others (scripts/low_norm.sh, bench.py) get the settings alone, and no --dry-run.
set -euo pipefail
given=${OUTPUT:-}
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
sweeps="table_1 table_2 table_3 table_4 table_a4 table_a5 table_a6 table_a7 figure_2"
costs="table_a8 table_a9"
studies="figure_1b figure_3 figure_a1 figures_a2_a3 tables_a2_a3"
: "${TABLES=$sweeps $costs $studies}"
list TABLES
for name in "${TABLES[@]}"; do
    if [[ " $sweeps $costs $studies " != *" $name "* ]]; then
        echo "error: TABLES has \"$name\"; accepted: $sweeps $costs $studies" >&2
        exit 2
    fi
done

# one OUTPUT NAME [ARGUMENT...]: a script, with its own OUTPUT if none is given; Ctrl-C ends all.
one() {
    local code=0 output=(-u OUTPUT)
    [[ -z $1 ]] || output=("OUTPUT=$1")
    echo "== $2"
    env "${output[@]}" bash "$HOUSE/scripts/$2.sh" "${@:3}" || code=$?
    ((code != 130)) || exit 130
    ((code == 0)) || failed+=("$2")
}

for name in "${TABLES[@]}"; do
    if [[ " $sweeps " == *" $name "* ]]; then
        one "$given" "$name" "$@"
    elif [[ " $* " != *" --dry-run "* ]]; then
        if [[ " $studies " == *" $name "* ]]; then one "${given:+$given/low_norm}" "$name"
        else one "$given" "$name"; fi
    fi
done
finish
