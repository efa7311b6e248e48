"""What several test modules share: the folder of real images, where it is, and a server of the phantom's weights."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from phantom import layout, specs
from phantom.demo import WEIGHTS
from tests.release_server import ReleaseServer
from tests.shared_data import NOT_HERE, SHARED_DATA


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT, MR and DICOM beside the project; tests that want it are skipped where it is not."""
    if not SHARED_DATA.is_dir():
        pytest.skip(NOT_HERE)
    return SHARED_DATA


@pytest.fixture(scope="session")
def trained_release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReleaseServer]:
    """The small trained networks as zips, where the real ones' releases lie. Shared by modules: give it no faults."""
    folder = tmp_path_factory.mktemp("releases")
    for dataset in (292, 297, 298, 756):
        spec = specs.SPECS[dataset]
        layout.zip_weights(WEIGHTS / spec.folder, folder / spec.version / f"{spec.folder}.zip")
    with ReleaseServer.over(folder) as server:
        yield server


@pytest.fixture(scope="session")
def odd_disk(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The environment of a process whose disk lacks what tests/odd_disk.c says; the variables named there say what."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("nothing can be put before the C library here: no Linux, or no compiler")
    library = tmp_path_factory.mktemp("odd") / "odd_disk.so"
    source = Path(__file__).with_name("odd_disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}
