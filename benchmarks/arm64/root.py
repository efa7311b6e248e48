"""An ARM64 Debian with Python and the lean set, in a folder; its programs run through QEMU, each under its own path.

Needs Debian's packages debootstrap, qemu-user and gcc, and root, which debootstrap asks for. Nothing is installed in
the system, no program of the folder is run to make it, and neither chroot nor binfmt_misc is needed: Python knows
itself as a script that calls QEMU, so that the processes that it starts are emulated, too.
"""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.weigh import ROOT

SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
"""Debian 12: its glibc, 2.36, is new enough for OpenVINO's wheels, which ask for 2.35."""

PYTHON_VERSION = "3.11"

PLATFORM = "aarch64-manylinux_2_35"

QEMU = "qemu-aarch64"
"""Of the package qemu-user. That of qemu-user-static takes no plugins."""

STARTER = """\
#!/bin/sh
export PYTHONHOME='{system}/usr' PYTHONPATH='{packages}'
exec {qemu} -0 "$0" -L '{system}' '{system}/usr/bin/python{version}' "$@"
"""

log = logging.getLogger(__name__)


def make_root(folder: Path) -> Path:
    """The emulated Python of ``folder``, which is made where it is not there yet.

    Raises CalledProcessError; FileExistsError where the folder holds something else.
    """
    starter = folder / "python3"
    if starter.exists():
        return starter
    missing = [program for program in ("debootstrap", "dpkg-deb", QEMU, "gcc") if shutil.which(program) is None]
    if missing:
        raise SystemExit(f"Missing: {', '.join(missing)}. apt-get install debootstrap qemu-user gcc")
    folder.mkdir(parents=True)
    system, packages = folder / "debian", folder / "packages"
    log.info("Making an ARM64 Debian in %s ...", folder)
    _unpack_debian(system)
    _install_packages(packages)
    source = Path(__file__).with_name("count.c")
    _run("gcc", "-O2", "-shared", "-fPIC", "-o", str(plugin(starter)), str(source))
    text = STARTER.format(system=system, packages=packages, qemu=QEMU, version=PYTHON_VERSION)
    starter.write_text(text)
    starter.chmod(0o755)
    return starter


def plugin(starter: Path) -> Path:
    """The plugin beside ``starter`` that counts instructions."""
    return starter.with_name("count.so")


def environment(cpu: str, *, counter: Path | None = None) -> dict[str, str]:
    """Variables for an emulated program: QEMU's name of the processor, and the plugin that counts."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENSCANS_", "PYTHON"))}
    return {**kept, "QEMU_CPU": cpu, **({} if counter is None else {"QEMU_PLUGIN": str(counter)})}


def _unpack_debian(system: Path) -> None:
    """Its packages are only unpacked: to set them up would run their scripts, emulated, for what nobody needs."""
    _run(
        "debootstrap", "--foreign", "--arch=arm64", "--variant=minbase", "--include=python3", SUITE, str(system), MIRROR
    )
    for package in sorted(system.glob("var/cache/apt/archives/*.deb")):
        _run("dpkg-deb", "--extract", str(package), str(system))


def _install_packages(folder: Path) -> None:
    uv = Path(sys.executable).with_name("uv")
    there = ("--target", str(folder), "--python-platform", PLATFORM, "--python-version", PYTHON_VERSION)
    locked = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(ROOT / "requirements-cpu.lock"))
    _run(str(uv), "pip", "install", *there, *locked)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
