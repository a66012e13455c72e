#!/usr/bin/env bash
# When does Nemesis gain? The differences to CoOp of Table A5's runs beside the frequency of the Low-Norm
# Effect in CoOp's prompts, and PAN's selections beside the study of its own. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
finished_runs table_a5 "$@"
rows=()
for omega in 1 10; do rows+=("CoOp+PUN (omega $omega)" "CoOp+PAN (omega $omega)"); done
nemesis effect "${RUNS[@]}" --rows "${rows[@]}" --selected "CoOp+PAN (omega 1)" \
    --output-dir "$reports/effect" || CODE=1
exit "$CODE"
