"""Reading an image at once, for tests that do not look at it between its headers and its voxels."""

from pathlib import Path

from openscans import volumes
from openscans.progress import Report, ignore_progress
from openscans.volumes import Volume


def read_volume(path: Path, *, series_uid: str | None = None, report: Report = ignore_progress) -> Volume:
    """Open the image at ``path`` and read it. Raises what either does."""
    return volumes.open(path, series_uid=series_uid, report=report).read(report)
