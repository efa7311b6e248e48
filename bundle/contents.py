"""What goes into the executable's folder and what is left out, each with its reason; only user of names of files in it.

Knows how libraries lay out their parts; nothing of PyInstaller but that a file has a place in the bundle.
"""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TypeAlias

Entry: TypeAlias = tuple[str, str, str]
"""A file as PyInstaller lists it: its place in the bundle, where it comes from, and its kind."""

DATA = (
    ("pyproject.toml", "."),  # the version
    ("phantom/weights", "phantom/weights"),  # the demonstration's networks
)

HIDDEN_IMPORTS = (
    # imagecodecs imports the part that holds a decoder when it is first asked for.
    "imagecodecs._shared",
    "imagecodecs._shared_cython",
    "imagecodecs._jpeg2k",
    "imagecodecs._jpegls",
    "imagecodecs._ljpeg",
    "imagecodecs._deflate",
)

LEFT_OUT = {
    "tkinter": "nothing has a window",
    "readline": "for typing into Python; under the GPL",
    "curses": "for terminals",
    "_curses": "for terminals",
    "lib2to3": "for developers",
    "setuptools": "installs packages",
    "pip": "installs packages",
    "pytest": "tests",
    "_pytest": "tests",
    "hypothesis": "tests",
    "numpy.testing": "tests",
    "numpy.f2py": "compiles Fortran",
    "numpy.distutils": "compiles C",
    "nibabel.testing": "tests",
    "nibabel.benchmarks": "tests",
    "pygments": "colours of httpx's command line",
    "rich": "colours of httpx's command line",
    "httpx._main": "httpx's command line",
    "openvino.tools": "converts models of other frameworks; OpenVINO does without",
    "openvino.frontend.tensorflow": "reads models of another framework; graphs are built here",
    "openvino.torch": "compiles PyTorch's models",
    "openvino_telemetry": "tells OpenVINO's makers who uses it",
    "totalsegmentator.python_api": "TotalSegmentator's own pipeline; only its tables are used",
    "matplotlib": "draws; only libraries' unused parts ask for it",
    "mpl_toolkits": "matplotlib's",
    "pylab": "matplotlib's",
    "pandas": "tables; only libraries' unused parts ask for it",
    "pyarrow": "tables; only libraries' unused parts ask for it",
    "h5py": "only libraries' unused parts ask for it",
    "aiohttp": "only libraries' unused parts ask for it",
    "mypy": "for developers",
    "triton": "751 MB that compile PyTorch's models; they run as they are",
    "torchvision": "for photographs",
    "nnunetv2": "only TotalSegmentator's own pipeline asks for it",
    "sklearn": "only TotalSegmentator's own pipeline asks for it",
    "vtk": "only TotalSegmentator's own pipeline asks for it",
    "gdcm": "pydicom's second choice of decoder; imagecodecs decodes",
    "pylibjpeg": "pydicom's third choice of decoder; imagecodecs decodes",
    "PIL.ImageQt": "windows",
    "PIL.ImageTk": "windows",
    "PIL._avif": "5 MB for pictures of a kind that is not written",
    "PIL._webp": "pictures of a kind that is not written",
    "requests": "pydicom's downloads of samples",
    "yaml": "settings of logs, which are not read from files",
    "defusedxml": "reads what cameras write into pictures",
    "numpy.fft": "no frequencies are asked for",
    "numpy._core._multiarray_tests": "tests",
}
"""Modules, and why. Most are looked for only because some part of a library that is not used could want them."""

ONLY_WITH_CUDA = {
    "torch": "2 to 5 GB; the CPU runs on OpenVINO",
    "dynamic_network_architectures": "builds PyTorch's networks",
    "SimpleITK": "264 MB for NRRD and MetaImage; without it they get a sentence",
    "scipy": "139 MB that only PyTorch's side asks for",
    "pdb": "for developers, but PyTorch imports it",
    "doctest": "for developers, but PyTorch imports it",
    "pydoc": "for developers, but PyTorch imports it",
    "unittest": "for developers, but PyTorch imports it",
}

UNUSED_FILES = {
    r"(lib)?openvino_.*_frontend.*": "readers of models of other frameworks; graphs are built here",
    r"(lib)?openvino_(auto|auto_batch|hetero|intel_gpu|intel_npu)_plugin.*": "only the CPU is asked for",
    r"(lib)?openvino_c\..*": "the interface for C",
    r"(lib)?tbbmalloc_proxy.*": "replaces the memory of programs that ask for it by name",
    r"cache\.json": "speeds up the GPU that is not asked for",
    r".*\.(pyi|pxd|h|hpp|lib|pc|a|cmake)": "for compilers",
    r"py\.typed": "for type checkers",
    r"INSTALLER|RECORD|REQUESTED|WHEEL|direct_url\.json|top_level\.txt|entry_points\.txt": "for installers",
    r"(charset_files|palettes)/.*\.(dcm|txt|md)": "pydicom's sample files",
}
"""The ends of places in the bundle, as expressions, and why."""


def hidden_imports(*, cuda: bool) -> list[str]:
    return [*HIDDEN_IMPORTS, *(("torch",) if cuda else ())]


def excluded_modules(*, cuda: bool) -> list[str]:
    return [*LEFT_OUT, *(() if cuda else ONLY_WITH_CUDA)]


def cpu_plugin() -> list[tuple[str, str]]:
    """The plugin, and what it opens: by their names, which PyInstaller does not see."""
    spec = find_spec("openvino")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("OpenVINO is not installed.")
    libraries = Path(spec.origin).parent / "libs"
    wanted = [*libraries.glob("*openvino_*_cpu_plugin.*"), *libraries.glob("*tbb[bm]*"), *libraries.glob("*hwloc*")]
    return [(str(path), "openvino/libs") for path in wanted]


def drop_unused(entries: Iterable[Entry]) -> list[Entry]:
    """``entries`` without the files that nothing reads."""
    unused = re.compile("|".join(f"(?:(?:.*/)?(?:{end}))" for end in UNUSED_FILES))
    return [entry for entry in entries if unused.fullmatch(PurePath(entry[0]).as_posix()) is None]
