"""What several test modules share: the folder of real images, where it is, and a server of the phantom's weights."""

from collections.abc import Iterator
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
    for dataset in (292, 297, 298):
        spec = specs.SPECS[dataset]
        layout.zip_weights(WEIGHTS / spec.folder, folder / spec.version / f"{spec.folder}.zip")
    with ReleaseServer.over(folder) as server:
        yield server
