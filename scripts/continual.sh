#!/usr/bin/env bash
# Continual learning: the classes of each of DATASETS in TASKS (5) tasks with METHODS, which are
# TRAINER[:STRATEGY[:CONFIG]]; CONFIG of the others (vit_b16, or mini). One table and one figure a dataset.
# Variables: also DATA, OUTPUT, SHOTS, SEEDS and OPTS of scripts/lib.sh. Arguments: KEY VALUE pairs, then
# flags of nemesis continual.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
config=vit_b16 coop=CoOp:sequential:vit_b16_ep50 datasets=(dtd eurosat)
[[ $PROFILE == paper ]] || config=mini coop=CoOp:sequential:mini_generic datasets=(emoji_activities)
words METHODS "$coop" CLIPLoRA CLIPLoRA:merged OrthogonalLoRA:orthogonal CoTo:merged
flags=(--methods "${WORDS[@]}" --config "${CONFIG:-$config}" --tasks "${TASKS:-5}" ${DATA:+--root "$DATA"})
words SEEDS 1 2 3
flags+=(--seeds "${WORDS[@]}" ${SHOTS:+--shots "$SHOTS"})
[[ $PROFILE == paper ]] || flags+=(--set INPUT.TRAIN_VIEWS 4)
settings "$@"
words DATASETS "${datasets[@]}"
for dataset in "${WORDS[@]}"; do
    code=0
    folder=${OUTPUT:-${default%/paper}/continual}/$dataset
    nemesis continual "$dataset" --output-dir "$folder" "${flags[@]}" || code=$?
    ((code < 2)) || exit "$code"
    ((code == 0)) || failed+=("$dataset")
done
finish
