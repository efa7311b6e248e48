"""What a benchmark is held to: which variables, which processors, which precision; and that the library obeys."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import instruction_sets
from benchmarks.instruction_sets import INSTRUCTION_SETS
from tests import small_networks

ROOT = Path(__file__).resolve().parents[2]

LAPTOP = """\
processor\t: 0
model name\t: A laptop's
flags\t\t: fpu sse2 fma avx2 avx_vnni

processor\t: 1
model name\t: A laptop's slower core
flags\t\t: fpu sse2
"""


KERNELS = """
import sys
from pathlib import Path
from openscans import networks
from openscans.types import InferenceOptions
folder, cache = map(Path, sys.argv[1:])
print(*networks.load_folder(folder, device="cpu", options=InferenceOptions(1, "float32", cache)).runs.kernels)
"""
"""Says which kernels a network got; in a process of its own, because a library reads its limits once."""


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    path = tmp_path / "cpuinfo"
    path.write_text(LAPTOP)
    return path


@pytest.mark.parametrize("isa", ["avx2", "avx2_vnni"])
def test_a_processor_that_has_the_instruction_set_is_let_through(laptop: Path, isa: str) -> None:
    instruction_sets.check_processor(isa, laptop)


@pytest.mark.parametrize(
    ("isa", "lacking"), [("avx512", "avx512f"), ("avx512_vnni", "avx512_vnni"), ("amx", "amx_tile")]
)
def test_a_processor_that_lacks_it_is_refused_with_what_it_lacks(laptop: Path, isa: str, lacking: str) -> None:
    with pytest.raises(SystemExit, match=rf"lacks .*{lacking}.*--isa {isa} cannot"):
        instruction_sets.check_processor(isa, laptop)


def test_a_flag_that_only_begins_like_the_one_asked_for_is_not_it(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("flags : fma avx2 avx512_vnni\n")
    with pytest.raises(SystemExit, match="lacks avx_vnni;"):
        instruction_sets.check_processor("avx2_vnni", tmp_path / "cpuinfo")


def test_a_system_that_tells_nothing_of_its_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="for Linux on x86-64"):
        instruction_sets.check_processor("avx2", tmp_path / "none")


def test_the_processor_is_called_what_the_kernel_calls_it_or_what_python_does(laptop: Path, tmp_path: Path) -> None:
    assert instruction_sets.processor_name(laptop) == "A laptop's"
    assert instruction_sets.processor_name(tmp_path / "none")


def test_each_limits_both_programs_by_the_same_variables() -> None:
    names = [set(one.variables) for one in INSTRUCTION_SETS.values()]
    assert all(own == names[0] for own in names)
    assert {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"} <= names[0]


@pytest.mark.parametrize(
    ("isa", "asked", "given"),
    [
        (None, "auto", "auto"),
        ("amx", "auto", "auto"),
        ("avx2", "auto", "float32"),
        ("avx512_vnni", "auto", "float32"),
        ("avx512_vnni", "int8", "int8"),
        ("amx", "float32", "float32"),
    ],
)
def test_below_bfloat16_nothing_is_left_to_the_runtime(isa: str | None, asked: str, given: str) -> None:
    assert instruction_sets.precision_under(isa, asked) == given


@pytest.mark.parametrize("isa", ["avx2", "avx512"])
def test_a_network_computes_with_no_more_than_it_is_held_to(tmp_path: Path, isa: str) -> None:
    try:
        instruction_sets.check_processor(isa)
    except SystemExit as lacking:
        pytest.skip(str(lacking))
    folder = small_networks.write(tmp_path, small_networks.CT)
    said = subprocess.run(
        [sys.executable, "-c", KERNELS, str(folder), str(tmp_path / "compiled")],
        env=os.environ | INSTRUCTION_SETS[isa].variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    kernels = said.stdout.split()
    assert kernels
    assert {found for kernel in kernels for found in ("avx2", "avx512") if found in kernel} == {isa}
