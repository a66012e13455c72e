#!/usr/bin/env bash
# Check this checkout on a GPU; see `python -m nemesis bench gpu --help` for the flags.
#
#   bash benchmarks/gpu_check/gpu_check.sh --seconds 430           # one GPU
#   bash benchmarks/gpu_check/gpu_check.sh --device cpu --tiny     # a dry run
#
# Nothing is downloaded. For a machine that lacks small packages, put their wheels into .whl/:
#   pip download --no-deps --only-binary=:all: -d .whl yacs ftfy wcwidth jaxtyping beartype
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python=${PYTHON:-python3}
if compgen -G ".whl/*.whl" >/dev/null; then
    "$python" -m pip install -q --no-index --no-deps --upgrade --target output/wheels .whl/*.whl
    export PYTHONPATH="$PWD/output/wheels${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "$python" -m nemesis bench gpu --output-dir output/gpu_check "$@"
