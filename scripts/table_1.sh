#!/usr/bin/env bash
# Table 1: domain generalisation from ImageNet.
# Settings and further arguments: scripts/table.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/table.sh"
table table_1 --title "Table 1: domain generalisation" --paper 1 -- "$@"
