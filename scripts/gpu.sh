#!/usr/bin/env bash
# Tests and times everything on a GPU that is borrowed for minutes, without network:
#
#     bash scripts/gpu.sh OUT MINUTES
#
# needs Python 3.11 and PyTorch 2.10 with Triton, NumPy and pytest; no installation, the
# package is used as it lies here. First the tests of the kernels (at most 90 seconds),
# then the suite `gpu`, ordered by worth and ended in time, then a table. The folder OUT
# gets tests.txt, gpu-1.json (written after each case) and table.txt. Called again with
# the same OUT it goes on. From the environment:
#
#     PYTHON   the interpreter (python3)
#     WHEELS   a folder of wheels that are unpacked for this run, without network
#     DEVICE   cuda; cpu runs the same on tiny cases, in Triton's interpreter
#     SUITE    further options of `python -m attn_tutorial.benchmark.gpu_suite`
#     TESTS    further options of pytest
set -u
[ $# -eq 2 ] || { echo "usage: bash scripts/gpu.sh OUT MINUTES" >&2; exit 2; }
python=${PYTHON:-python3}
device=${DEVICE:-cuda}
limit=$("$python" -c 'import sys; print(int(60 * float(sys.argv[1])))' "$2") || exit 2
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
cd "$(dirname "$0")/.." || exit 2
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
caches=$(mktemp -d)
trap 'rm -rf "$caches"' EXIT
export TRITON_CACHE_DIR=$caches/triton TORCHINDUCTOR_CACHE_DIR=$caches/inductor
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1  # of plugins none is needed, and any may be broken
options=(--device "$device")
[ "$device" = cpu ] && options+=(--tiny) && export TRITON_INTERPRET=1 CUDA_VISIBLE_DEVICES=

if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install -q --no-index --no-deps --target "$caches/wheels" \
        "$WHEELS"/*.whl && export PYTHONPATH=$PYTHONPATH:$caches/wheels
fi

"$python" - "$device" <<'END' || exit 1
import sys, torch
if sys.argv[1] == "cuda" and not torch.cuda.is_available():
    sys.exit("PyTorch finds no CUDA device; DEVICE=cpu runs tiny cases without one")
END

least() { echo $(($1 < $2 ? $1 : $2)); }
# shellcheck disable=SC2086
timeout -k 5 "$(least 90 $((limit / 2 + 1)))" "$python" -m pytest -q \
    -p no:cacheprovider -W default tests/test_gpu.py ${TESTS:-} 2>&1 | tee "$out/tests.txt"
[ "${PIPESTATUS[0]}" -eq 0 ] || echo "NOT ALL TESTS PASSED: see $out/tests.txt"

# A kernel that fails badly takes the device from its process: another one goes on.
for attempt in 1 2 3; do
    left=$((limit - SECONDS))
    [ "$left" -gt 0 ] || break
    soft=$("$python" -c 'import sys; print(0.95 * int(sys.argv[1]) / 60)' "$left")
    # shellcheck disable=SC2086
    timeout -k 5 "$left" "$python" -m attn_tutorial.benchmark.gpu_suite "$out" \
        --minutes "$soft" "${options[@]}" ${SUITE:-}
    [ $? -eq 75 ] || break
done

"$python" -m attn_tutorial.benchmark.gpu_table "$out" | tee "$out/table.txt"
exit "${PIPESTATUS[0]}"
