#!/usr/bin/env bash
# Few-shot learning with the papers' epochs and BACKBONE (rn50), or with CONFIG. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
declare -A names=([rn50]=RN50 [rn101]=RN101 [vit_b32]=ViT-B/32 [vit_b16]=ViT-B/16)
[[ -z ${BACKBONE:-} ]] || flags=(--set MODEL.BACKBONE.NAME "${names[$BACKBONE]:-$BACKBONE}")
protocol few_shot "$@"
