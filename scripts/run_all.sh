#!/usr/bin/env bash
# Make every table and figure of the paper one after the other, continuing after failures, then the page
# over all of them, tables/report.html; TABLES selects some. Variables and arguments: scripts/lib.sh;
# arguments do not apply to the costs, Tables A8 and A9, and to Table A11, which is not in mini.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
all=(table_{1,2,3,4,a4,a5,a6,a7,a10} figure_2 table_a8 table_a9 figure_{1b,3,a1} figures_a2_a3 tables_a2_a3)
[[ $PROFILE != paper ]] || all+=(table_a11)
words TABLES "${all[@]}"
tables=("${WORDS[@]}")
for name in "${tables[@]}"; do
    [[ " ${all[*]} " == *" $name "* ]] || refuse "TABLES has \"$name\"; accepted: ${all[*]}"
done
for name in "${tables[@]}"; do
    arguments=("$@") code=0
    [[ $name != table_a@(8|9|11) ]] || arguments=()
    [[ $name != table_a@(8|9|11) || " $* " != *" --dry-run "* ]] || continue
    echo "== $name"
    bash "$ROOT/scripts/$name.sh" "${arguments[@]}" || code=$?
    ((code != 130)) || exit 130
    ((code == 0)) || failed+=("$name")
done
[[ " $* " != *" --dry-run "* ]] || finish
echo "== all of them"
nemesis reproduce --profile "$PROFILE" ${OUTPUT:+--output-dir "$OUTPUT"} ${DATA:+--root "$DATA"} ||
    failed+=("reproduce")
finish
