#!/usr/bin/env bash
# Make every table and figure of the paper one after the other, continuing after failures; TABLES selects
# some. Variables and arguments: scripts/lib.sh; arguments do not apply to the costs, Tables A8 and A9.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
all=(table_{1,2,3,4,a4,a5,a6,a7} figure_2 table_a8 table_a9 figure_{1b,3,a1} figures_a2_a3 tables_a2_a3)
words TABLES "${all[@]}"
tables=("${WORDS[@]}")
for name in "${tables[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || refuse "TABLES has \"$name\"; accepted: ${all[*]}"
done
for name in "${tables[@]}"; do
    arguments=("$@") code=0
    [[ $name != table_a[89] ]] || arguments=()
    [[ $name != table_a[89] || " $* " != *" --dry-run "* ]] || continue
    echo "== $name"
    bash "$ROOT/scripts/$name.sh" "${arguments[@]}" || code=$?
    ((code != 130)) || exit 130
    ((code == 0)) || failed+=("$name")
done
finish
