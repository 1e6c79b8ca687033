#!/usr/bin/env bash
# Install a JupyterHub into .hub (Python by pip, its proxy by npm), and run its test.
set -eu
cd "$(dirname "$0")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1
"${PYTHON:-python3}" -m venv .hub
.hub/bin/pip install -q -r requirements/hub.txt
npm install --silent --no-fund --no-audit --prefix .hub configurable-http-proxy@5.2.0
OMP_NUM_THREADS=1 exec .venv/bin/python -m pytest -q -p no:cacheprovider tests/test_hub.py
