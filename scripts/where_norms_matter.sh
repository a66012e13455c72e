#!/usr/bin/env bash
# At which layers does the norm of a prompt mean anything? Rescales the vectors of VPT, IVLP and MaPLe layer
# by layer (RESCALE: 0.1 10), those at positions 0 and 1. See docs/where_norms_matter.md and scripts/lib.sh; a profile is not needed.
PROFILE=paper
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
REPLACE="" RESCALE=${RESCALE-0.1 10} studied=(--positions 0 1)
reports=${OUTPUT:-output/where_norms_matter}/tables
study where_norms_matter where_norms_matter "$@"
