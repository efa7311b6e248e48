"""One vertebra as a detection holds it and as it is told, for tests to take and change what matters to them."""

from openscans.types import Alternative, Bounds, Point, Vertebra, Voxel

SAMPLE = Vertebra(
    label="L1",
    center=Point(3.0, 4.0, 5.0),
    confidence=0.95,
    level_confidence=0.9,
    alternatives=(Alternative("L2", 0.07),),
    bounds=Bounds(Voxel(1, 1, 1), Voxel(5, 7, 9)),
    center_mm=Point(-3.0, -4.0, 5.0),
    volume_ml=35.6,
    truncated=False,
    body=None,
)

SAMPLE_TOLD = {
    "label": "L1",
    "center": {"x": 3.0, "y": 4.0, "z": 5.0},
    "confidence": 0.95,
    "level_confidence": 0.9,
    "alternatives": [{"label": "L2", "probability": 0.07}],
    "bounds": {"min": {"x": 1, "y": 1, "z": 1}, "max": {"x": 5, "y": 7, "z": 9}},
    "center_mm": {"x": -3.0, "y": -4.0, "z": 5.0},
    "volume_ml": 35.6,
    "truncated": False,
    "body": None,
}
"""The whole of it: no key more, and these in this order."""
