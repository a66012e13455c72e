#!/usr/bin/env bash
# Table 1: domain generalisation from ImageNet. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
sweep table_1 "$@" --report
