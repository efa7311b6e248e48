"""A picture of a CT from the side and from the front with the vertebrae found in it; knows Pillow, not the service."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

WINDOW_HU = (-150.0, 900.0)
"""Black and white of the picture: soft tissue stays visible, cortical bone is bright."""

PIXEL_MM = 0.75
GAP_PIXELS = 24
FOUND, TRUTH = (80, 220, 255), (255, 150, 60)


@dataclass(frozen=True)
class Projection:
    """One maximum projection: the array's axis that is looked along, and the one that runs to the right."""

    along: int
    across: int


SAGITTAL = Projection(along=2, across=1)
CORONAL = Projection(along=1, across=2)


@dataclass(frozen=True)
class View:
    """A volume ``voxels`` (z, y, x), HU, whose z runs from foot to head, with ``spacing_mm`` (x, y, z)."""

    voxels: NDArray[np.int16]
    spacing_mm: tuple[float, float, float]


def save(path: Path, view: View, found: Mapping[str, Sequence[float]], truth: Mapping[str, Sequence[float]]) -> None:
    """Write a PNG: sagittal and coronal maximum projection, found centres labelled, true ones as rings.

    ``found`` and ``truth``: label → voxel index (x, y, z).
    """
    panels = [_panel(view, projection, found, truth) for projection in (SAGITTAL, CORONAL)]
    width = sum(panel.width for panel in panels) + GAP_PIXELS * (len(panels) - 1)
    sheet = Image.new("RGB", (width, max(panel.height for panel in panels)))
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + GAP_PIXELS
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _panel(
    view: View, projection: Projection, found: Mapping[str, Sequence[float]], truth: Mapping[str, Sequence[float]]
) -> Image.Image:
    low, high = WINDOW_HU
    brightest = view.voxels.max(axis=projection.along).astype(np.float32)
    grey = np.clip((brightest - low) / (high - low) * 255, 0, 255).astype(np.uint8)[::-1]
    across_mm, up_mm = view.spacing_mm[2 - projection.across], view.spacing_mm[2]
    height, width = grey.shape
    size = (round(width * across_mm / PIXEL_MM), round(height * up_mm / PIXEL_MM))
    panel = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    draw = ImageDraw.Draw(panel)

    def position(center: Sequence[float]) -> tuple[float, float]:
        across = (center[2 - projection.across] + 0.5) * across_mm / PIXEL_MM
        return across, size[1] - (center[2] + 0.5) * up_mm / PIXEL_MM

    for center in truth.values():
        x, y = position(center)
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=TRUTH, width=2)
    for label, center in found.items():
        x, y = position(center)
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=FOUND)
        draw.text((x + 14, y - 6), label, fill=FOUND)
    return panel
