#!/usr/bin/env bash
# Sets up and runs the OpenScans backend.
#   ./setup.sh         make the virtual environment and install what this machine can use
#   ./setup.sh run     ... and start the server on port 8000
#   ./setup.sh demo    ... and detect the vertebrae of a synthetic CT through HTTP
#   ./setup.sh test    ... and run all tests
#   ./setup.sh build   build the executable in dist/, in an environment of its own; --cuda: with PyTorch, from .venv
# Before the task:
#   --full     the full set, with PyTorch; without a flag so on macOS and where an NVIDIA driver is found
#   --cpu      the lean set, without PyTorch, 0.5 GB instead of 7; without a flag so everywhere else
#   --locked   exactly the versions of the lock file; best into no environment: what is there and not in it stays
# An environment stays what it was made as, full or lean, locked or not; delete .venv to change it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

say() { printf '%s\n' "$*" >&2; }

usage() {
    say "usage: ./setup.sh [--full | --cpu] [--locked] [install | run | demo | test | build]"
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

# Whether OpenVINO has wheels for this Python; without the question pip would end with a list of old versions.
check_platform() {
    local system machine libc version
    read -r system machine libc version < <(
        "$1" -c 'import platform; print(platform.system(), platform.machine(), *platform.libc_ver())'
    )
    case "$system $machine $libc" in
        "Darwin arm64 "*) return ;;
        "Linux x86_64 glibc") if [ "${version#*.}" -ge 28 ]; then return; fi ;;
        "Linux aarch64 glibc") if [ "${version#*.}" -ge 35 ]; then return; fi ;;
    esac
    say "OpenVINO, which runs the networks, has no wheels for this Python ($1 on $system $machine${libc:+, $libc $version})."
    if [ "$system" = Darwin ]; then
        say "On a Mac with Apple Silicon install a Python for arm64, such as that of https://www.python.org/downloads/, and"
        say "run this again. For Intel Macs there are none: use another machine."
    else
        say "It has some for Linux on x86-64 with glibc 2.28 and on ARM64 with glibc 2.35, so in Debian 12, Ubuntu 22.04 and"
        say "newer ones; there, or in a container of theirs (see Dockerfile), run this again."
    fi
    return 1
}

make_environment() {
    local folder="$1" python
    if "$folder/bin/python" -c '' 2>/dev/null; then
        check_platform "$folder/bin/python"
        return
    fi
    python="$(find_python)"
    check_platform "$python"
    say "Making $folder with $("$python" --version)."
    rm -rf "$folder"
    "$python" -m venv "$folder" || {
        rm -rf "$folder"
        say "The virtual environment could not be made. On Debian and Ubuntu: sudo apt install python3-venv"
        return 1
    }
}

has_nvidia_driver() { nvidia-smi -L >/dev/null 2>&1 || [ -e /proc/driver/nvidia/version ] || [ -e /dev/nvidia0 ]; }

# The set that .venv was made with, and nothing where none is installed there yet.
kind_there() {
    if [ -f .venv/lean ]; then
        echo lean
    elif [ -f .venv/full ] || compgen -G '.venv/installed-*' >/dev/null; then
        echo full
    fi
}

# Says why, and how to get the other one.
choose_kind() {
    local full="./setup.sh --full takes the full one, with PyTorch: 7 GB on Linux."
    local lean="./setup.sh --cpu takes the lean one, without PyTorch: 0.5 GB."
    if [ "$kind" = full ]; then
        say "Installing the full set into .venv: about 7 GB on Linux, where it takes some minutes, 2 GB on macOS."
    elif [ "$kind" = lean ]; then
        say "Installing the lean set into .venv, without PyTorch: about 0.5 GB."
    elif [ "$(uname)" = Darwin ]; then
        kind=full
        say "Installing the full set into .venv, which is small on macOS: about 2 GB. $lean"
    elif has_nvidia_driver; then
        kind=full
        say "An NVIDIA driver was found: installing the full set into .venv, about 7 GB, in some minutes. $lean"
    else
        kind=lean
        say "No NVIDIA driver was found: installing the lean set into .venv, without PyTorch, about 0.5 GB. $full"
    fi
}

pip_install() {
    local folder="$1" line
    shift
    set -- "$folder/bin/python" -m pip install --disable-pip-version-check "$@"
    if [ -t 2 ]; then
        "$@" >&2
        return
    fi
    # Of what pip says without a terminal a word a package; what goes wrong comes on stderr.
    "$@" --progress-bar off | while IFS= read -r line; do
        case "$line" in
            "Collecting "*) line="${line#Collecting }" && say "  ${line%%[!A-Za-z0-9._-]*}" ;;
            "Building wheel"* | "Installing collected packages"*) say "${line%%:*} ..." ;;
        esac
    done
}

install() {
    local there stamp
    there="$(kind_there)"
    if [ -n "$there" ] && [ "${kind:-$there}" != "$there" ]; then
        if [ "$there" = full ]; then
            say "The environment in .venv is the full one, which can do all that the lean one can. Delete .venv to change it."
        else
            say "The environment in .venv is the lean one, without PyTorch. Delete .venv to change it, and run this again."
        fi
        return 1
    fi
    kind="${kind:-$there}"
    if [ -f .venv/locked ]; then locked=yes; fi
    stamp="$(cat requirements*.txt requirements*.lock | cksum | tr ' ' '-')${locked:+-locked}"
    if [ -f ".venv/installed-$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    make_environment .venv
    choose_kind
    touch ".venv/$kind"
    if [ -n "$locked" ]; then
        touch .venv/locked
        if [ "$kind" = lean ]; then
            pip_install .venv --no-deps --require-hashes -r requirements-cpu.lock
        else
            pip_install .venv --no-deps --require-hashes -r requirements.lock
        fi
    elif [ "$kind" = lean ]; then
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
        kind=full
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

kind="" locked=""
while [[ "${1:-}" == --* ]]; do
    case "$1" in
        --full) kind=full ;;
        --cpu) kind=lean ;;
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
