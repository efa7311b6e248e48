"""What lies in the executable's folder: nothing that the service never uses, and nothing whose licence forbids it."""

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, packages_distributions
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from bundle import contents
from phantom import drawing, grid, spine
from phantom.files import DicomStyle, write_dicom_series, write_nifti
from tests.executable import built
from tests.live_server import MAIN, ROOT, LiveServer, children_of, live_server
from tests.release_server import ReleaseServer

BESIDE = {"benchmarks", "bundle", "tests"}
"""Packages of the project that are no part of the service; of ``bundle`` only the script that starts it is inside."""

OURS = {path.stem for path in ROOT.glob("*.py")} | {path.parent.name for path in ROOT.glob("*/__init__.py")} - BESIDE

LOOSE = re.compile(r"base_library\.zip|pyproject\.toml|.*\.so[.\d]*")
"""Files of no folder: Python's first modules, the version, shared libraries."""

NOT_LOADED = {
    r"python3\.\d+/.*": "Python's own library is bundled as far as it may be asked for",
    r"numpy/random/.*": "the demonstration draws noise with it",
    r"PIL/_imagingft\..*|pillow\.libs/lib(freetype|harfbuzz|png16|brotli).*": "the demonstration's picture has names",
}
"""Shared libraries that a service without the demonstration does not load, and why they are there."""


@pytest.fixture(scope="module")
def executable() -> Path:
    return built()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """One image of each kind that needs a decoder of its own."""
    folder, phantom = tmp_path_factory.mktemp("images"), spine.describe(7)
    shape, affine = grid.axial(phantom, (2.0, 2.0, 3.0))
    voxels = drawing.render(phantom, shape, affine, seed=1)[0][:30]
    write_nifti(folder / "image.nii.gz", voxels, affine)
    styles = [DicomStyle(transfer_syntax=syntax) for syntax in (JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless)]
    series = [write_dicom_series(folder / style.transfer_syntax, voxels, affine, style) for style in styles]
    return [folder / "image.nii.gz", *(files[0] for files in series)]


def worked(server: LiveServer, images: list[Path]) -> None:
    """What a viewer asks for, from the download to the detections."""
    assert server.get("/openapi.json").status_code == 200
    assert server.get("/docs").status_code == 200
    with server.events("POST", "/api/models/download/vertebrae") as events:
        assert [*events][-1]["status"] == "complete"
    for image in images:
        response = server.detect(image, fast_mode=image.suffix == ".gz")
        assert response.status_code == 200, response.text


def frozen_modules(executable: Path) -> set[str]:
    readers = pytest.importorskip("PyInstaller.archive.readers")
    return set(readers.CArchiveReader(str(executable)).open_embedded_archive("PYZ.pyz").toc)


def test_no_package_is_bundled_that_the_service_never_imports(
    executable: Path, images: list[Path], trained_release: ReleaseServer, tmp_path: Path
) -> None:
    env = {"OPENSCANS_WEIGHTS_URL": trained_release.url, "PYTHONPROFILEIMPORTTIME": "1"}
    with live_server(tmp_path, env, program=MAIN) as server:
        worked(server, images)
        server.ask_to_end()
    lines = (line.split("|")[-1].strip() for line in server.errors if line.startswith("import time:"))
    used = {name.split(".")[0] for name in lines} | OURS | sys.stdlib_module_names
    bundled = {name.split(".")[0] for name in frozen_modules(executable)}
    assert {name for name in bundled - used if not name.startswith("_sysconfigdata")} == set()
    assert {name for name in folders_of(executable.parent / "_internal") if name not in used} == set()


def folders_of(inside: Path) -> Iterator[str]:
    """The module that each folder of the bundle belongs to."""
    modules = {package: module for module, packages in packages_distributions().items() for package in packages}
    for path in inside.iterdir():
        if path.name.endswith(".dist-info"):
            yield modules[Distribution.at(path).metadata["Name"]]
        elif path.is_dir() and path.name != f"python3.{sys.version_info.minor}":
            yield {"pillow": "PIL"}.get(name := path.name.removesuffix(".libs"), name)


@pytest.mark.skipif(sys.platform != "linux", reason="libraries have other names elsewhere")
def test_no_loose_file_is_bundled_but_shared_libraries(executable: Path) -> None:
    loose = {path.name for path in (executable.parent / "_internal").iterdir() if path.is_file()}
    assert {name for name in loose if not LOOSE.fullmatch(name)} == set()


def test_what_is_under_the_lgpl_can_be_replaced(executable: Path) -> None:
    assert "cc3d" not in {name.split(".")[0] for name in frozen_modules(executable)}
    assert (executable.parent / "_internal" / "cc3d" / "__init__.py").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which libraries a process has loaded")
def test_every_shared_library_is_loaded_by_the_server_or_its_worker(
    executable: Path, images: list[Path], trained_release: ReleaseServer, tmp_path: Path
) -> None:
    env = {"OPENSCANS_WEIGHTS_URL": trained_release.url}
    with live_server(tmp_path, env, program=(), interpreter=executable) as server:
        worked(server, images)
        processes = {server.process.pid, *children_of(server.process.pid)}
        loaded = "".join(Path(f"/proc/{pid}/maps").read_text() for pid in processes)
    inside = executable.parent / "_internal"
    libraries = (path for path in inside.rglob("*.so*") if not path.is_symlink())
    unused = {path.relative_to(inside).as_posix() for path in libraries if f"{path}\n" not in loaded}
    excepted = re.compile("|".join(NOT_LOADED))
    assert {name for name in unused if not excepted.fullmatch(name)} == set()


def test_what_is_left_out_is_not_there(executable: Path) -> None:
    left_out = {*contents.LEFT_OUT, *contents.ONLY_WITH_CUDA}
    bundled = frozen_modules(executable)
    parents = {".".join(name.split(".")[:length]) for name in bundled for length in range(1, name.count(".") + 2)}
    assert parents & left_out == set()
    folder = executable.parent / "_internal"
    assert {module for module in left_out if (folder / module.replace(".", "/")).exists()} == set()


def test_the_folder_is_no_larger_than_promised(executable: Path) -> None:
    sizes = (path.stat().st_size for path in executable.parent.rglob("*") if path.is_file() and not path.is_symlink())
    assert sum(sizes) < 280e6


def test_the_licences_and_the_bill_of_materials_name_the_same_parts(executable: Path) -> None:
    bill = json.loads((executable.parent / "sbom.cdx.json").read_text(encoding="utf-8"))
    told = (executable.parent / "THIRD_PARTY_LICENSES.txt").read_text(encoding="utf-8")
    names = {component["name"] for component in bill["components"]}
    assert {"numpy", "openvino", "Python", "connected-components-3d"} <= names
    assert "OpenBLAS" in names or sys.platform == "darwin"
    assert {name for name in names if f"\n{name} " not in told} == set()
    assert "GNU LESSER GENERAL PUBLIC LICENSE" in told


def test_the_bill_of_materials_is_what_cyclonedx_says_it_must_be(executable: Path) -> None:
    schema = pytest.importorskip("cyclonedx.schema")
    validator = pytest.importorskip("cyclonedx.validation.json").JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str((executable.parent / "sbom.cdx.json").read_text(encoding="utf-8")) is None
