#!/usr/bin/env bash
# When does Nemesis gain? The differences to CoOp of Table A5's runs beside the frequency of the Low-Norm
# Effect in CoOp's prompts, and PAN's selections beside the study of its own. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
code=0
sweep table_a5 "$@" || code=$?
[[ $code -lt 2 && " $* " != *\ --@(dry-run|help)\ * ]] || exit "$code"
mapfile -t runs < <(nemesis sweep table_a5 "${flags[@]}" --folders)
[[ ${runs[*]} ]] || exit 1
rows=()
for omega in 1 10; do rows+=("CoOp+PUN (omega $omega)" "CoOp+PAN (omega $omega)"); done
nemesis effect "${runs[@]}" --rows "${rows[@]}" --selected "CoOp+PAN (omega 1)" \
    --output-dir "$reports/effect" || code=1
exit "$code"
