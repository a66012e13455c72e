#!/usr/bin/env bash
# Table A11: prefix-tuning with PUN on MRPC in DATA/mrpc, with the language model MODEL (gpt2) and the
# paper's OMEGAS; SEEDS (1 2 3). Arguments go to examples/prefix_tuning_mrpc.py. See scripts/lib.sh.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
[[ $PROFILE == paper ]] || refuse "Table A11 has no bundled data; run it with PROFILE=paper, MODEL and MRPC in DATA/mrpc"
words OMEGAS 0 0.1 1 10 50
flags=(--omega "${WORDS[@]}")
flag --seeds SEEDS
module examples.prefix_tuning_mrpc --model "${MODEL:-gpt2}" --data "${DATA:-data}/mrpc" \
    --output-dir "$reports/table_a11" "${flags[@]}" "$@"
