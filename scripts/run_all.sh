#!/usr/bin/env bash
# Make every table and figure of the paper one after the other, continuing after failures.
# TABLES selects some. Tables of accuracy and Figure 2 take the settings and further arguments of
# scripts/table.sh; the others (scripts/low_norm.sh, nemesis bench) take only the settings, not --dry-run.
set -euo pipefail
output_root=${OUTPUT:-}
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

# run_script OUTPUT NAME [ARGUMENT...]: an empty OUTPUT is the script's default; Ctrl-C ends all.
run_script() {
    local code=0 output=(-u OUTPUT)
    [[ -z $1 ]] || output=("OUTPUT=$1")
    echo "== $2"
    env "${output[@]}" bash "$ROOT/scripts/$2.sh" "${@:3}" || code=$?
    ((code != 130)) || exit 130
    ((code == 0)) || failed+=("$2")
}

for name in "${TABLES[@]}"; do
    if [[ " $sweeps " == *" $name "* ]]; then
        run_script "$output_root" "$name" "$@"
    elif [[ " $* " != *" --dry-run "* ]]; then
        if [[ " $studies " == *" $name "* ]]; then
            run_script "${output_root:+$output_root/low_norm}" "$name"
        else run_script "$output_root" "$name"; fi
    fi
done
finish
