#!/usr/bin/env bash
# Table A10: visual prompts with a head and PUN, 1,000 training images; --config vit_b16 takes CLIP's
# ViT-B/16 instead of timm's. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_a10 "$@" --report
