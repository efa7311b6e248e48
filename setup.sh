#!/usr/bin/env bash
# Sets up and runs the OpenScans backend.
#   ./setup.sh         make the virtual environment and install everything
#   ./setup.sh run     ... and start the server on port 8000
#   ./setup.sh demo    ... and detect the vertebrae of a synthetic CT through HTTP
#   ./setup.sh test    ... and run all tests
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '%s\n' "$*" >&2; }

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

install() {
    local stamp
    stamp="$(cat requirements*.txt | cksum | tr ' ' '-')"
    if [ -f ".venv/installed-$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    local python
    python="$(find_python)"
    say "Installing into .venv with $("$python" --version); on Linux this takes about 7 GB and some minutes."
    if ! .venv/bin/python -c '' 2>/dev/null; then
        rm -rf .venv
        "$python" -m venv .venv || {
            rm -rf .venv
            say "The virtual environment could not be made. On Debian and Ubuntu: sudo apt install python3-venv"
            return 1
        }
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r requirements-dev.txt
    rm -f .venv/installed-*
    touch ".venv/installed-$stamp"
}

task="${1:-install}"
[ "$#" -eq 0 ] || shift
case "$task" in
    install) run=(true) ;;
    run) run=(.venv/bin/python main.py "$@") ;;
    demo) run=(.venv/bin/python -m phantom.demo "$@") ;;
    test) run=(.venv/bin/python -m pytest "$@") ;;
    *)
        say "usage: ./setup.sh [install | run | demo | test]"
        exit 2
        ;;
esac
# On a line of its own: in a list with && the shell would not stop at the first failure inside.
install
exec "${run[@]}"
