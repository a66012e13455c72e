#!/usr/bin/env bash
# Run a script of coop, cocoop or plot with Nemesis: nemesis.sh PUN|PAN|PUN+PAN SCRIPT ARGUMENT...
#     scripts/nemesis.sh PUN coop/main caltech101 rn50_ep50 end 16 1 False
#     scripts/nemesis.sh PAN cocoop/base2new_train dtd 1 TRAINER.NEMESIS.OMEGA 10
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
declare -A betas=([PUN]=1.0 [PAN]=0.0 [PUN+PAN]=0.5) trainers=([coop]=CoOp [cocoop]=CoCoOp [plot]=PLOT)
variant=${1:-nothing} script=${2:-nothing}
trainer=${trainers[${script%%/*}]:-}
if [[ -z ${betas[$variant]:-} ]]; then
    echo "error: the first argument is \"$variant\"; accepted: PUN, PAN, PUN+PAN" >&2
    exit 2
fi
if [[ -z $trainer || ! -f $here/$script.sh ]]; then
    echo "error: the second argument is \"$script\"; accepted: coop/main, coop/eval," \
        "cocoop/base2new_train, cocoop/base2new_test, cocoop/xd_train, cocoop/xd_test, plot/main" >&2
    exit 2
fi
TRAINER=${trainer}Nemesis exec bash "$here/$script.sh" "${@:3}" TRAINER.NEMESIS.BETA "${betas[$variant]}"
