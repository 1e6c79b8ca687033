#!/usr/bin/env bash
# Run the unit tests in fresh environments, one after the other:
#   scripts/versions.sh [oldest] [colab] [pinned] [newest]
# Each takes some gigabytes while it runs. With PIP_EXTRA_INDEX_URL set to PyTorch's
# index of CPU builds it takes less.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
ALL=".[test,experiments,benchmark,triton]"
export OMP_NUM_THREADS=1 PIP_DISABLE_PIP_VERSION_CHECK=1

install() {  # install NAME PIP
    case $1 in
        oldest | colab) "$2" install -q -e "$ALL" -c "requirements/versions/$1.txt" ;;
        pinned)
            "$2" install -q -r requirements.txt -r requirements/benchmark.txt \
                -r requirements/triton.txt && "$2" install -q --no-deps -e . ;;
        newest) "$2" install -q -e "$ALL" ;;
        *) echo "There is no environment '$1': oldest, colab, pinned, newest." >&2
            return 2 ;;
    esac
}

run_pytest() {  # run_pytest PYTHON ARGUMENTS
    local python=$1
    shift
    "$python" -m pytest -n 2 --dist loadscope -p no:cacheprovider -q -W default \
        --disable-warnings "$@"
}

check() {  # check NAME
    local home=.versions/$1
    rm -rf "$home"
    mkdir -p .versions
    "$PYTHON" -m venv "$home" && "$home/bin/pip" install -q "setuptools>=77" && install "$1" "$home/bin/pip" || return
    run_pytest "$home/bin/python" -m "not browser" || return
    if [ "$1" = colab ]; then
        run_pytest "$home/bin/python" --nbval-lax notebooks || return
    fi
}

[ $# -gt 0 ] || set -- oldest colab pinned newest
failed=""
for name in "$@"; do
    echo "== $name"
    check "$name" || failed="$failed $name"
    [ -x ".versions/$name/bin/pip" ] && ".versions/$name/bin/pip" list 2>/dev/null \
        | grep -iE '^(torch|triton|numpy|ipywidgets|matplotlib|transformers) '
    rm -rf ".versions/$name"
done
rmdir .versions 2>/dev/null
[ -z "$failed" ] || { echo "Failed:$failed"; exit 1; }
