"""Which licences may go into the executable, and where a file's licence is not known."""

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

pytest.importorskip("license_expression")

from bundle import contents, licences, parts
from bundle.parts import Part, UnknownPart
from tests.live_server import ROOT


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        ("MIT", True),
        ("LGPL-3.0-or-later", True),
        ("LGPL-2.1-only AND MIT", True),
        ("GPL-3.0-or-later", False),
        ("AGPL-3.0-only", False),
        ("MIT AND GPL-2.0-only", False),
        ("FTL OR GPL-2.0-or-later", True),
        ("GPL-2.0-only OR AGPL-3.0-only", False),
        ("(MIT OR GPL-2.0-only) AND GPL-3.0-only", False),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", True),
        ("GPL-2.0-or-later WITH Classpath-exception-2.0", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("LicenseRef-Microsoft-Redistributable", True),
    ],
)
def test_only_the_gpl_without_another_choice_is_refused(licence: str, allowed: bool) -> None:
    assert licences.is_allowed(licence) is allowed


@pytest.mark.parametrize("licence", ["", "proprietary words", "PSFL", "MIT AND"])
def test_a_licence_that_is_none_is_refused_too(licence: str) -> None:
    with pytest.raises(UnknownPart):
        licences.is_allowed(licence)


def test_a_part_under_the_gpl_is_named() -> None:
    with pytest.raises(licences.ForbiddenLicence, match="readline is under GPL"):
        licences.check([Part("zlib", "1", "Zlib"), Part("readline", "8", "GPL-3.0-or-later")])


def test_every_text_is_told_once_under_the_names_of_its_parts() -> None:
    told = licences.licences_text(
        "program", [Part("a", "1", "MIT", ("words",)), Part("b", "2", "MIT", ("words", "more"))]
    )
    assert told.count("words") == 1
    assert "\na, b\n" in told
    assert "\nb\n" in told


def test_a_library_that_nobody_has_looked_at_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "libnew.so.1").touch()
    with pytest.raises(UnknownPart, match="libnew"):
        parts.parts_of([("libnew.so.1", str(tmp_path / "libnew.so.1"), parts.BINARY)], own=[])


def test_windows_may_write_a_library_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "VCRUNTIME140_1.dll").touch()
    [part] = parts.parts_of([("VCRUNTIME140_1.dll", str(tmp_path / "VCRUNTIME140_1.dll"), parts.BINARY)], own=[])
    assert part.name == "Microsoft Visual C++ Runtime"


def test_a_file_in_the_environment_that_no_package_owns_is_not_taken_for_the_projects() -> None:
    stray = Path(sys.prefix, "stray.so")
    stray.touch()
    try:
        with pytest.raises(UnknownPart, match="stray"):
            parts.parts_of([("stray.so", str(stray), parts.BINARY)], own=[ROOT, Path(sys.prefix).parent])
    finally:
        stray.unlink()


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="the system has no Debian packages")
def test_a_library_of_a_debian_system_is_told_with_its_version_and_text() -> None:
    libraries = [*Path("/lib").glob("*-linux-gnu/libz.so.1")]
    [part] = parts.parts_of([("libz.so.1", str(libraries[0]), parts.BINARY)], own=[])
    assert part.version
    assert str(part.purl).endswith(f"/zlib1g@{part.version}")
    assert "zlib" in part.texts[0]


def test_a_file_is_traced_to_its_package_with_version_and_texts() -> None:
    import numpy

    [part] = parts.parts_of([("numpy", str(numpy.__file__), "PYMODULE")], own=[])
    assert (part.name, part.version, part.purl) == ("numpy", version("numpy"), f"pkg:pypi/numpy@{version('numpy')}")
    assert part.licence.startswith("BSD-3-Clause")
    assert any("NumPy Developers" in text for text in part.texts)


def test_a_library_inside_a_package_is_told_beside_it() -> None:
    import numpy

    [blas] = (Path(numpy.__file__).parents[1] / "numpy.libs").glob("libscipy_openblas*")
    found = parts.parts_of([(f"numpy.libs/{blas.name}", str(blas), parts.BINARY)], own=[])
    assert [(part.name, part.inside) for part in found] == [("numpy", ""), ("OpenBLAS", f"numpy {version('numpy')}")]


def test_what_nothing_reads_is_not_kept() -> None:
    def entry(place: str) -> contents.Entry:
        return place, f"/somewhere/{place}", parts.BINARY

    kept = [
        "openvino/libs/libopenvino.so.2641",
        "openvino/libs/libopenvino_intel_cpu_plugin.so",
        "openvino/libs/openvino_intel_cpu_plugin.dll",
        "numpy/_core/_multiarray_umath.cpython-313-x86_64-linux-gnu.so",
    ]
    dropped = [
        "openvino/libs/libopenvino_onnx_frontend.so.2641",
        "openvino/libs/openvino_intel_gpu_plugin.dll",
        "openvino/libs/libopenvino_auto_batch_plugin.so",
        "openvino/libs/cache.json",
        "pydicom/data/charset_files/chrX1.dcm",
        "numpy/__init__.pyi",
    ]
    assert contents.drop_unused([entry(place) for place in kept + dropped]) == [entry(place) for place in kept]
