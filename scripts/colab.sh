#!/usr/bin/env bash
# Run chapters as Colab would: scripts/colab.sh [notebooks/NAME.ipynb ...]
# in a fresh environment with what requirements/colab.txt names. It takes some gigabytes
# while it runs; with PIP_EXTRA_INDEX_URL set to PyTorch's index of CPU builds, less.
set -eu
cd "$(dirname "$0")/.."
home=.versions/alone
export OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf "$home"
mkdir -p .versions
trap 'rm -rf "$home"; rmdir .versions 2>/dev/null || true' EXIT
"${PYTHON:-python3}" -m venv "$home"
"$home/bin/pip" install -q -r requirements/colab.txt
"$home/bin/python" scripts/colab.py "$@"
