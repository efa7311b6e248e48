#!/usr/bin/env bash
# Sets up and runs the OpenScans backend.
#   ./setup.sh         make the virtual environment and install everything
#   ./setup.sh run     ... and start the server on port 8000
#   ./setup.sh demo    ... and detect the vertebrae of a synthetic CT through HTTP
#   ./setup.sh test    ... and run all tests
#   ./setup.sh build   build the executable in dist/, in an environment of its own; --cuda: with PyTorch, from .venv
# Before the task:
#   --cpu      the lean set, for machines without an NVIDIA card: no PyTorch, 0.5 GB instead of 7
#   --locked   exactly the versions of the lock file; best into no environment: what is there and not in it stays
# An environment stays what it was made as, lean or locked; delete .venv to change it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '%s\n' "$*" >&2; }

usage() {
    say "usage: ./setup.sh [--cpu] [--locked] [install | run | demo | test | build]"
    exit 2
}

find_python() {
    local name
    for name in python3.13 python3.12 python3.11 python3; do
        if "$name" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    say "No Python 3.11 to 3.13 was found. Install Python 3.13 from https://www.python.org/downloads/"
    say "(Debian, Ubuntu: sudo apt install python3 python3-venv; macOS: brew install python@3.13) and run this again."
    return 1
}

make_environment() {
    local folder="$1" python
    if "$folder/bin/python" -c '' 2>/dev/null; then
        return
    fi
    python="$(find_python)"
    say "Making $folder with $("$python" --version)."
    rm -rf "$folder"
    "$python" -m venv "$folder" || {
        rm -rf "$folder"
        say "The virtual environment could not be made. On Debian and Ubuntu: sudo apt install python3-venv"
        return 1
    }
}

# The set that .venv was made with; "full" where it is not there yet.
kind_there() {
    if [ -f .venv/lean ]; then echo cpu; else echo full; fi
}

pip_install() {
    local folder="$1"
    shift
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
}

install() {
    local stamp
    if [ -n "$cpu" ] && [ -d .venv ] && [ "$(kind_there)" = full ] && compgen -G '.venv/installed-*' >/dev/null; then
        say "The environment in .venv is the full one, which can do all that the lean one can. Delete .venv to change it."
        return 1
    fi
    [ -n "$cpu" ] || [ "$(kind_there)" = full ] || cpu=yes
    if [ -f .venv/locked ]; then locked=yes; fi
    stamp="$(cat requirements*.txt requirements*.lock | cksum | tr ' ' '-')${locked:+-locked}"
    if [ -f ".venv/installed-$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    make_environment .venv
    if [ -n "$cpu" ]; then
        say "Installing the lean set into .venv: about 0.5 GB."
        touch .venv/lean
    else
        say "Installing the full set into .venv; on Linux this takes about 7 GB and some minutes."
    fi
    if [ -n "$locked" ]; then
        touch .venv/locked
        pip_install .venv --no-deps --require-hashes -r "requirements${cpu:+-cpu}.lock"
    elif [ -n "$cpu" ]; then
        pip_install .venv -r requirements-cpu.txt -r requirements-test.txt
        # Last and alone: it asks for PyTorch, and pip would complain of every package that is not there.
        pip_install .venv --no-deps -r requirements-totalsegmentator.txt
    else
        pip_install .venv -r requirements.txt -r requirements-dev.txt
    fi
    rm -f .venv/installed-*
    touch ".venv/installed-$stamp"
}

# Without PyTorch always from the lock, into an environment made for just that: the same commit gives the same parts.
# PyTorch's would be too large to have twice, so it is built from .venv.
build() {
    local folder=build/venv made_of
    if [ "${1:-}" = --cuda ]; then
        if [ "$(kind_there)" = cpu ]; then
            say "The environment in .venv is the lean one, without PyTorch. Delete .venv, run ./setup.sh, and build again."
            exit 1
        fi
        install
        folder=.venv
    else
        made_of="$(cksum <requirements-cpu.lock | tr ' ' '-')"
        if [ ! -f "$folder/made-of-$made_of" ] || ! "$folder/bin/python" -c '' 2>/dev/null; then
            rm -rf "$folder"
            make_environment "$folder"
            pip_install "$folder" --no-deps --require-hashes -r requirements-cpu.lock
            touch "$folder/made-of-$made_of"
        fi
    fi
    exec "$folder/bin/python" -m PyInstaller --noconfirm --workpath build/work build.spec -- "$@"
}

cpu="" locked=""
while [[ "${1:-}" == --* ]]; do
    case "$1" in
        --cpu) cpu=yes ;;
        --locked) locked=yes ;;
        *) usage ;;
    esac
    shift
done
task="${1:-install}"
[ "$#" -eq 0 ] || shift
case "$task" in
    install) run=(true) ;;
    run) run=(.venv/bin/python main.py "$@") ;;
    demo) run=(.venv/bin/python -m phantom.demo "$@") ;;
    test) run=(.venv/bin/python -m pytest "$@") ;;
    build) build "$@" ;;
    *) usage ;;
esac
# On a line of its own: in a list with && the shell would not stop at the first failure inside.
install
exec "${run[@]}"
