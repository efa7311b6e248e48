"""Instruction sets that all programs of a benchmark can be held to, as if the processor had nothing newer.

A processor is not slowed by it, nor given fewer units: what is measured is the code that a lesser processor would run.
The libraries read their variables once, before they compute, so these are set before any of them is loaded, and child
processes inherit them. What each obeys:

- oneDNN, which computes the convolutions of OpenVINO and of PyTorch alike, and OpenVINO's own kernels, which ask oneDNN
  what the processor can: ``ONEDNN_MAX_CPU_ISA``, and ``DNNL_MAX_CPU_ISA`` for older copies;
- PyTorch's own loops: ``ATEN_CPU_CAPABILITY``; its matrix products by MKL: ``MKL_ENABLE_INSTRUCTIONS``, which MKL heeds
  on Intel's processors only;
- numpy, in both programs: ``NPY_DISABLE_CPU_FEATURES``.

libdeflate and connected-components-3d obey nothing, and take no time that matters here.

That both programs are really limited was seen so, and `compare` tells the first two in each of its runs:

- OpenVINO's runtime model names the kernel of every convolution (``primitiveType``, `Detection.networks`): where it was
  `brgconv_avx512_f32` it is `brgconv_avx2_f32`;
- ``torch.backends.cpu.get_cpu_capability()`` and ``torch.__config__.show()`` say AVX2 instead of AVX512;
- with ``ONEDNN_VERBOSE=1`` PyTorch's copy of oneDNN says ``isa:Intel AVX2``, and each of its convolutions `jit:avx2`
  where it said `jit:avx512_core`.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")

AVX2_FLAGS = ("avx2", "fma")
AVX512_FLAGS = (*AVX2_FLAGS, "avx512f", "avx512bw", "avx512vl", "avx512dq")

NUMPY_AVX512 = "X86_V4 AVX512_ICL AVX512_SPR"
"""What numpy chooses its loops by beyond AVX2, by its names."""


@dataclass(frozen=True)
class InstructionSet:
    """``flags``: what the kernel lists of a processor that has it; ``variables``: what limits the libraries to it."""

    flags: tuple[str, ...]
    variables: Mapping[str, str]
    has_bfloat16: bool = False


def _limited(onednn: str, aten: str, mkl: str, numpy_without: str = "") -> dict[str, str]:
    return {
        "ONEDNN_MAX_CPU_ISA": onednn,
        "DNNL_MAX_CPU_ISA": onednn,
        "ATEN_CPU_CAPABILITY": aten,
        "MKL_ENABLE_INSTRUCTIONS": mkl,
        "NPY_DISABLE_CPU_FEATURES": numpy_without,
    }


INSTRUCTION_SETS: Mapping[str, InstructionSet] = {
    "avx2": InstructionSet(AVX2_FLAGS, _limited("AVX2", "avx2", "AVX2", NUMPY_AVX512)),
    "avx2_vnni": InstructionSet((*AVX2_FLAGS, "avx_vnni"), _limited("AVX2_VNNI", "avx2", "AVX2", NUMPY_AVX512)),
    "avx512": InstructionSet(AVX512_FLAGS, _limited("AVX512_CORE", "avx512", "AVX512")),
    "avx512_vnni": InstructionSet((*AVX512_FLAGS, "avx512_vnni"), _limited("AVX512_CORE_VNNI", "avx512", "AVX512_E1")),
    "amx": InstructionSet(
        (*AVX512_FLAGS, "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
        _limited("AVX512_CORE_AMX", "avx512", "AVX512_E4"),
        has_bfloat16=True,
    ),
}
"""By what ``--isa`` calls them. oneDNN's names: `dnnl::cpu_isa`; MKL's: its guide for developers, "Instruction Set
Specific Dispatching"."""


def precision_under(isa: str | None, asked: str) -> str:
    """The precision to ask of our program for ``asked``: never "auto" where the limit is below bfloat16.

    OpenVINO's capabilities tell what the processor has, whatever the limit.
    """
    if asked == "auto" and isa is not None and not INSTRUCTION_SETS[isa].has_bfloat16:
        return "float32"
    return asked


def check_processor(isa: str, cpu_info: Path = CPU_INFO) -> None:
    """Raises SystemExit, with a sentence, where this processor lacks ``isa`` or nothing tells what it has."""
    has = _read(cpu_info, "flags").split()
    if not has:
        raise SystemExit(f"What this processor can is not told here; --isa {isa} is for Linux on x86-64.")
    lacking = [flag for flag in INSTRUCTION_SETS[isa].flags if flag not in has]
    if lacking:
        raise SystemExit(f"This processor lacks {', '.join(lacking)}; --isa {isa} cannot be measured on it.")


def processor_name(cpu_info: Path = CPU_INFO) -> str:
    return _read(cpu_info, "model name") or platform.processor() or platform.machine()


def _read(cpu_info: Path, key: str) -> str:
    """What ``cpu_info`` says of ``key`` for its first processor; nothing where it says nothing."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return ""
    values = (line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key)
    return next(values, "")
