"""Reading an image at once, for tests that do not look at it between its headers and its voxels."""

from pathlib import Path

from openscans import volumes
from openscans.progress import Report, ignore_progress
from openscans.sources import archive
from openscans.volumes import Volume


def read_volume(path: Path, *, series_uid: str | None = None, report: Report = ignore_progress) -> Volume:
    """Open the image at ``path`` and read it; a zip is unpacked beside it, to stay. Raises what any of these does."""
    if archive.is_zip(path):
        path = archive.unpack(path, path.with_name(f"{path.name} unpacked"))
    return volumes.open(path, series_uid=series_uid, report=report).read(report)
