"""What setup.sh installs on which machine, and what it says of it.

Python, the driver and the system are scripts that stand in, so that nothing is downloaded. setup.bat is only read.
"""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live_server import ROOT

PYTHON = """#!/bin/sh
# Makes environments of itself, tells the machine that $PLATFORM names, and installs nothing.
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    "-m pip install "*) echo "$*" >>pip.txt && printf "$PIP_SAYS" && exit "$PIP_ENDS_WITH" ;;
    *"import platform"*) echo "$PLATFORM" ;;
esac
"""

A_PC = "Linux x86_64 glibc 2.36"
A_MAC = "Darwin arm64"

FULL = ["-r requirements.txt -r requirements-dev.txt"]
LEAN = ["-r requirements-cpu.txt -r requirements-test.txt", "--no-deps -r requirements-totalsegmentator.txt"]

NO_DRIVER_HERE = pytest.mark.skipif(
    any(Path(path).exists() for path in ("/proc/driver/nvidia/version", "/dev/nvidia0")),
    reason="this machine has a driver",
)


@dataclass
class Machine:
    """A checkout of the script and what it installs from, and the programs that it finds."""

    checkout: Path
    programs: Path

    def has(self, name: str, script: str) -> None:
        """From now on the program ``name`` is ``script``."""
        program = self.programs / name
        program.write_text(script, encoding="utf-8")
        program.chmod(0o755)

    def setup(
        self, *flags: str, platform: str = A_PC, pip_says: str = "", pip_ends_with: int = 0
    ) -> subprocess.CompletedProcess[str]:
        self.has("uname", f"#!/bin/sh\necho {platform.split(maxsplit=1)[0]}\n")
        told = {"PLATFORM": platform, "PIP_SAYS": pip_says, "PIP_ENDS_WITH": str(pip_ends_with)}
        return subprocess.run(
            ["bash", self.checkout / "setup.sh", *flags],
            env={**os.environ, **told, "PATH": f"{self.programs}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def installed(self) -> list[str]:
        """What pip was asked for, a call an entry."""
        file = self.checkout / "pip.txt"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [line.partition("--disable-pip-version-check ")[2].removesuffix(" --progress-bar off") for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One whose programs find no NVIDIA card."""
    if sys.platform == "win32":
        pytest.skip("Windows has setup.bat")
    checkout, programs = tmp_path / "checkout", tmp_path / "programs"
    checkout.mkdir()
    programs.mkdir()
    for file in (ROOT / "setup.sh", *ROOT.glob("requirements*")):
        shutil.copy(file, checkout)
    machine = Machine(checkout, programs)
    machine.has("python3.13", PYTHON)
    machine.has("nvidia-smi", "#!/bin/sh\nexit 9\n")
    return machine


def with_card(machine: Machine) -> Machine:
    machine.has("nvidia-smi", "#!/bin/sh\necho 'GPU 0: NVIDIA'\n")
    return machine


@NO_DRIVER_HERE
def test_without_a_driver_the_lean_set_is_installed_and_the_other_named(machine: Machine) -> None:
    said = machine.setup()
    assert said.returncode == 0, said.stderr
    assert machine.installed() == LEAN
    assert "No NVIDIA driver was found: installing the lean set" in said.stderr
    assert "./setup.sh --full" in said.stderr


def test_with_a_driver_the_full_set_is_installed_and_the_other_named(machine: Machine) -> None:
    said = with_card(machine).setup()
    assert machine.installed() == FULL
    assert "An NVIDIA driver was found: installing the full set" in said.stderr
    assert "./setup.sh --cpu" in said.stderr


def test_on_a_mac_the_full_set_is_installed_and_the_other_named(machine: Machine) -> None:
    said = machine.setup(platform=A_MAC)
    assert machine.installed() == FULL
    assert "Installing the full set into .venv, which is small on macOS" in said.stderr
    assert "./setup.sh --cpu" in said.stderr


def test_who_asks_for_the_full_set_gets_it_without_a_driver(machine: Machine) -> None:
    machine.setup("--full")
    assert machine.installed() == FULL


def test_who_asks_for_the_lean_set_gets_it_with_a_driver(machine: Machine) -> None:
    with_card(machine).setup("--cpu")
    assert machine.installed() == LEAN


@pytest.mark.parametrize(("flag", "lock"), [("--full", "requirements.lock"), ("--cpu", "requirements-cpu.lock")])
def test_each_set_has_its_lock(machine: Machine, flag: str, lock: str) -> None:
    machine.setup(flag, "--locked")
    assert machine.installed() == [f"--no-deps --require-hashes -r {lock}"]


def test_an_environment_stays_what_it_was_made_as_when_a_driver_comes(machine: Machine) -> None:
    machine.setup("--cpu")
    (machine.checkout / "requirements-cpu.txt").write_text("numpy\n", encoding="utf-8")
    with_card(machine).setup()
    assert machine.installed() == LEAN + LEAN


@pytest.mark.parametrize(("made", "asked", "there"), [("--full", "--cpu", "full"), ("--cpu", "--full", "lean")])
def test_asking_for_the_other_set_is_a_sentence(machine: Machine, made: str, asked: str, there: str) -> None:
    machine.setup(made)
    before = machine.installed()
    said = machine.setup(asked)
    assert said.returncode == 1
    assert said.stderr.startswith(f"The environment in .venv is the {there} one")
    assert "Delete .venv to change it" in said.stderr
    assert machine.installed() == before


def test_the_executable_with_pytorch_is_built_from_the_full_set(machine: Machine) -> None:
    machine.setup("build", "--cuda")
    assert machine.installed() == FULL


def test_the_executable_with_pytorch_is_not_built_from_the_lean_set(machine: Machine) -> None:
    machine.setup("--cpu")
    said = machine.setup("build", "--cuda")
    assert said.returncode == 1
    assert said.stderr.startswith("The environment in .venv is the lean one")
    assert machine.installed() == LEAN


def test_what_is_installed_is_not_installed_again(machine: Machine) -> None:
    machine.setup("--full")
    said = machine.setup()
    assert (said.returncode, said.stderr) == (0, "")
    assert machine.installed() == FULL


def test_an_install_that_failed_goes_on_with_its_set(machine: Machine) -> None:
    said = machine.setup("--full", pip_ends_with=1)
    assert said.returncode == 1
    machine.setup()
    assert machine.installed() == FULL + FULL


def test_the_install_tells_each_package_in_a_word(machine: Machine) -> None:
    pip_says = (
        "Collecting numpy<3,>=2.1 (from -r requirements.txt (line 9))\\n"
        "  Using cached numpy-2.4.0-cp313-cp313-manylinux_2_28_x86_64.whl (16 MB)\\n"
        "Requirement already satisfied: pip in ./.venv/lib\\n"
        "Collecting nnunetv2==2.8\\n"
        "Installing collected packages: numpy, nnunetv2\\n"
    )
    said = machine.setup("--full", pip_says=pip_says)
    assert said.stderr.splitlines()[-3:] == ["  numpy", "  nnunetv2", "Installing collected packages ..."]


@pytest.mark.parametrize(
    ("platform", "sentence"),
    [
        ("Darwin x86_64", "For Intel Macs there are none"),
        ("Linux aarch64 glibc 2.31", "on ARM64 with glibc 2.35"),
        ("Linux x86_64 glibc 2.17", "on x86-64 with glibc 2.28"),
        ("Linux x86_64 musl 1.2.5", "on x86-64 with glibc 2.28"),
        ("Linux x86_64", "on x86-64 with glibc 2.28"),
        ("Linux armv7l glibc 2.36", "on ARM64 with glibc 2.35"),
    ],
)
@pytest.mark.parametrize("task", ["install", "build"])
def test_where_openvino_has_no_wheels_a_sentence_says_so_and_nothing_is_made(
    machine: Machine, platform: str, sentence: str, task: str
) -> None:
    said = machine.setup(task, platform=platform)
    assert said.returncode == 1
    assert said.stderr.startswith("OpenVINO, which runs the networks, has no wheels for this Python")
    assert sentence in said.stderr
    assert sorted(path.name for path in machine.checkout.iterdir() if path.is_dir()) == []
    assert machine.installed() == []


@pytest.mark.parametrize("platform", [A_PC, A_MAC, "Linux x86_64 glibc 2.28", "Linux aarch64 glibc 2.35"])
def test_where_openvino_has_wheels_the_set_is_installed(machine: Machine, platform: str) -> None:
    assert machine.setup("--cpu", platform=platform).returncode == 0
    assert machine.installed() == LEAN


def test_each_place_that_setup_bat_goes_to_is_there_once() -> None:
    script = (ROOT / "setup.bat").read_text(encoding="ascii")
    labels = Counter(re.findall(r"^:(\w+)", script, re.MULTILINE))
    assert labels.keys() == set(re.findall(r"(?:goto |call :)(\w+)", script))
    assert set(labels.values()) == {1}
