#!/usr/bin/env bash
# Run a script of coop, cocoop or plot with Nemesis: nemesis.sh PUN|PAN|PUN+PAN SCRIPT ARGUMENT...
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
declare -A betas=([PUN]=1.0 [PAN]=0.0 [PUN+PAN]=0.5) trainers=([coop]=CoOp [cocoop]=CoCoOp [plot]=PLOT)
variant=${1:-nothing} script=${2:-nothing}
[[ ${betas[$variant]:-} ]] || refuse "the first argument is \"$variant\"; accepted: PUN, PAN, PUN+PAN"
[[ ${trainers[${script%%/*}]:-} && -f $ROOT/scripts/$script.sh ]] || refuse "the second argument is \"$script\"; \
accepted: coop/main, coop/eval, cocoop/{base2new,xd}_{train,test}, plot/main"
TRAINER=${trainers[${script%%/*}]}Nemesis exec bash "$ROOT/scripts/$script.sh" "${@:3}" \
    TRAINER.NEMESIS.BETA "${betas[$variant]}"
