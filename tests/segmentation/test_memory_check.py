"""A detection that does not fit into memory is refused before its image is read, and what it takes is known well."""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks, volumes
from openscans.errors import InconsistentGeometry, OutOfMemory
from openscans.networks import Network
from openscans.networks.plans import Plan
from openscans.progress import ignore_progress
from openscans.segmentation import blending, grids, memory_check, sliding_window
from openscans.types import Voxel
from openscans.volumes import Extent
from phantom.files import write_dicom_series, write_nifti
from tests import bad_files, small_networks
from tests.live_server import LiveServer, live_server
from tests.reading import read_volume

PLAIN_MM = np.diag([1.0, 1.0, 1.0, 1.0])

FINE_MM = np.diag([0.1, 0.1, 0.1, 1.0])

TEN_METRES_MM = np.diag([100.0, 100.0, 100.0, 1.0])
"""Of 100 voxels: 1.2 TB at 1.5 mm."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for spec in (small_networks.VERTEBRAE, small_networks.CT, small_networks.FAST, small_networks.MR):
        small_networks.write(folder, spec)
    return folder


@pytest.fixture(scope="module")
def plan(results: Path) -> Plan:
    """27 classes, patches of 16 × 64 × 64, 1.5 mm."""
    [folder] = results.glob("Dataset756_*/*")
    return networks.read_plan(folder)


@pytest.fixture(scope="module")
def server(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("home"), {"OPENSCANS_OFFLINE": "1"}) as live:
        for task in ("total_body", "vertebrae"):
            assert live.post(f"/api/models/import/{task}", {"file_path": str(results)}).status_code == 200
        yield live


@dataclass
class Silent(Network):
    """A network that takes no memory of its own."""

    plan: Plan
    device: str = "cpu"
    patch_s: float = 0.1

    def __post_init__(self) -> None:
        self._logits = np.zeros((self.plan.architecture.heads, *self.plan.patch_zyx), np.float32)

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._logits


@pytest.mark.parametrize("shape_zyx", [(60, 128, 140), (16, 64, 64), (10, 200, 200), (200, 64, 64)])
def test_what_the_sliding_window_takes_is_what_was_reckoned(plan: Plan, shape_zyx: tuple[int, int, int]) -> None:
    network = Silent(plan)
    image = np.ones(shape_zyx, np.float32)
    # What is kept from image to image.
    blending.gaussian(plan.patch_zyx)
    tracemalloc.start()
    sliding_window.predict(image, network, sliding_window.Coverage(0.5), report=ignore_progress)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reckoned_bytes = memory_check.window_bytes(shape_zyx, plan, step=0.5)
    # Beyond it: masks, and the plane that is being decided.
    assert 0.8 * reckoned_bytes <= peak_bytes <= 1.3 * reckoned_bytes + 2**21


def run_of(plan: Plan, *, held: bool = True) -> memory_check.NetworkRun:
    return memory_check.NetworkRun(plan, "cpu", 0.5, held=held)


def test_a_usual_image_is_let_through(plan: Plan) -> None:
    extent = Extent((100, 100, 100), PLAIN_MM)
    memory_check.check_detection(extent, run_of(plan), run_of(plan))
    memory_check.check_run(run_of(plan), grids.whole_box(Voxel(100, 100, 100)), PLAIN_MM)


@pytest.mark.parametrize("localised", [True, False])
def test_an_image_of_terabytes_is_refused(plan: Plan, localised: bool) -> None:
    with pytest.raises(OutOfMemory, match="The detection needs"):
        memory_check.check_detection(
            Extent((25_000, 10_000, 10_000), FINE_MM), run_of(plan) if localised else None, run_of(plan)
        )


def test_a_box_that_the_localiser_found_is_refused_where_it_is_too_large_to_be_labelled(plan: Plan) -> None:
    with pytest.raises(OutOfMemory, match="The detection needs"):
        memory_check.check_run(run_of(plan), grids.whole_box(Voxel(100, 100, 100)), TEN_METRES_MM)


def test_a_network_that_is_loaded_takes_nothing_more_for_itself(plan: Plan) -> None:
    features = (2**30, *plan.architecture.features[1:])
    wide = replace(plan, architecture=replace(plan.architecture, features=features))
    extent = Extent((10, 10, 10), PLAIN_MM)
    memory_check.check_detection(extent, run_of(plan), run_of(wide))
    with pytest.raises(OutOfMemory):
        memory_check.check_detection(extent, run_of(plan), run_of(wide, held=False))


def series(folder: Path) -> Path:
    write_dicom_series(folder, bad_files.some_voxels(slices=9), bad_files.AFFINE)
    return folder


def nifti(folder: Path) -> Path:
    write_nifti(folder / "image.nii.gz", bad_files.some_voxels(slices=9), bad_files.AFFINE)
    return folder / "image.nii.gz"


def nrrd(folder: Path) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(bad_files.some_voxels(slices=9))
    image.SetSpacing((2.0, 3.0, 4.0))
    sitk.WriteImage(image, str(folder / "image.nrrd"))
    return folder / "image.nrrd"


@pytest.mark.parametrize("make", [series, nifti, nrrd])
def test_what_the_headers_promise_is_told_before_a_voxel_is_read_and_is_true(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    done: list[int] = []
    image = volumes.open(make(tmp_path), report=lambda now, _total: done.append(now))
    assert set(done) == {0}
    volume = image.read()
    assert image.extent.shape_zyx == volume.voxels.shape
    assert image.modality == volume.modality
    np.testing.assert_array_equal(image.extent.affine_lps, volume.affine_lps)


def header_of(path: Path, shape_xyz: tuple[int, int, int]) -> Path:
    """A file that has the size of such an image of two bytes a voxel, without a disk that holds it."""
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape_xyz)
    header.set_sform(FINE_MM, code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    path.write_bytes(header.binaryblock + bytes(4))
    with path.open("r+b") as file:
        file.truncate(352 + 2 * int(np.prod(shape_xyz, dtype=np.int64)))
    return path


def test_a_hundred_gigabytes_are_refused_over_http_before_they_are_read(server: LiveServer, tmp_path: Path) -> None:
    path = header_of(tmp_path / "huge.nii", (4000, 4000, 3200))
    with server.detection_events(path) as stream:
        events = list(stream)
    assert (events[-1]["status"], events[-1]["code"]) == ("error", "out_of_memory")
    assert {event["status"] for event in events} <= {"queued", "downloading", "reading", "error"}
    assert server.detect(path).status_code == 507


def test_a_few_voxels_that_would_be_terabytes_at_the_networks_spacing_are_refused_over_http(
    server: LiveServer, tmp_path: Path
) -> None:
    write_nifti(tmp_path / "wide.nii.gz", np.zeros((160, 160, 160), np.int16), TEN_METRES_MM)
    with server.detection_events(tmp_path / "wide.nii.gz") as stream:
        events = list(stream)
    assert (events[-1]["status"], events[-1]["code"]) == ("error", "inconsistent_geometry")
    assert {event["status"] for event in events} <= {"queued", "reading", "error"}
    assert server.detect(tmp_path / "wide.nii.gz").status_code == 422


SMALL = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30,) * 2); "
SMALL += "os.execv(sys.executable, [sys.executable, 'main.py'])"
"""The server with six gigabytes of address space, which its worker inherits."""


def test_a_worker_with_little_memory_refuses_what_does_not_fit_and_serves_the_next(
    results: Path, server: LiveServer, tmp_path: Path
) -> None:
    # 220 million samples at 1.5 mm, and sums of 27 classes over 16 planes, come to 7 GB.
    write_nifti(tmp_path / "large.nii.gz", np.full((28, 58, 58), -1000, np.int16), np.diag([50.0, 50.0, 3.0, 1.0]))
    write_nifti(tmp_path / "usual.nii.gz", np.full((50, 50, 50), -1000, np.int16), np.diag([5.0, 5.0, 5.0, 1.0]))
    with live_server(tmp_path / "home", {"OPENSCANS_OFFLINE": "1"}, program=("-c", SMALL)) as small:
        for task in ("total_body", "vertebrae", "vertebrae_mr"):
            assert small.post(f"/api/models/import/{task}", {"file_path": str(results)}).status_code == 200
        refused = small.detect(tmp_path / "large.nii.gz", model="vertebrae_mr")
        assert (refused.status_code, refused.json()["code"]) == (507, "out_of_memory")
        assert refused.json()["error"].startswith("The detection needs ")
        assert small.detect(tmp_path / "usual.nii.gz").status_code == 200


@pytest.mark.parametrize("spacing_mm", [2e6, 1e30])
def test_voxels_of_a_kilometre_are_no_image(tmp_path: Path, spacing_mm: float) -> None:
    write_nifti(tmp_path / "image.nii", bad_files.some_voxels(), np.diag([spacing_mm] * 3 + [1.0]))
    with pytest.raises(InconsistentGeometry):
        read_volume(tmp_path / "image.nii")
