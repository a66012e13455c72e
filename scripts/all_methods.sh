#!/usr/bin/env bash
# Every method on the bundled benchmark: few-shot, unseen styles, base to new classes; one report each in
# output/all_methods/tables. Variables and arguments: scripts/lib.sh; a profile is not needed.
PROFILE=paper
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
BATCH=${BATCH-15} reports=${OUTPUT:-output/all_methods}/tables
for profile in paper styles new; do
    PROFILE=$profile flags=()
    echo "== $profile"
    sweep all_methods "$@" || failed+=("$profile")
    [[ " $* " != *\ --@(dry-run|help)\ * ]] || continue
    name=${profile/paper/few_shot}
    nemesis report --sweep all_methods --profile "$profile" --output-dir "$reports/$name" \
        ${OUTPUT:+"$OUTPUT"} || failed+=("report of $profile")
done
[[ " $* " != *\ --@(dry-run|help)\ * ]] || finish
# The Low-Norm Effect of every method that learns vectors, in one figure.
PROFILE=paper flags=()
learned=(CoOp CoCoOp PLOT KgCoOp ProGrad TCP VPT IVLP MaPLe PromptSRC)
mapfile -t runs < <(nemesis sweep all_methods --methods "${learned[@]}" --seeds 1 --folders \
    ${OUTPUT:+--output-dir "$OUTPUT"})
nemesis low-norm "${runs[@]}" --prompts encoders --replace --rescale 0.01 0.5 \
    --output-dir "$reports/low_norm" || failed+=("low-norm")
finish
