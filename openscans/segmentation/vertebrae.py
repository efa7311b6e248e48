"""Label numbers become vertebrae: names and their order, and from a label map each vertebra's place and size.

Knows numpy, connected components, the anatomical order, and where a volume lies in its image; nothing of files or JSON.
A `Vertebra` is made here alone, and always in the image's frame.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openscans.segmentation import bodies, grids
from openscans.segmentation.blending import RunnersUp
from openscans.types import HEAD_TO_FOOT, Body, Bounds, Point, SlicePixel, Vertebra, Voxel
from openscans.volumes import Volume
from openscans.volumes.stored import StoredSlices

VERTEBRA = re.compile(r"(?:vertebrae?_)?([CTLS]\d{1,2})")
"""How TotalSegmentator's label lists name a vertebra, as in ``vertebrae_L5``."""


LEAST_REPEATED, LEAST_REPEATED_ML = 0.3, 3.0
"""A second piece that is a body: its share of the largest, and its volume. A spinous process has a tenth, and 2 ml."""

LEAST_APART = 0.6
"""How far it lies away, in distances between neighbouring levels; halves of one body lie nearer."""

LEVEL_MM = {"C": 17.0, "T": 24.0, "L": 34.0, "S": 34.0}
"""About, from one level to the next, by region."""

MOST_REPEATED = 4
"""Pieces of one label that are measured; where there are more, all is wrong."""

SACRUM = "sacrum"
"""How TotalSegmentator's label lists name it, where they do."""

Pieces = NDArray[np.unsignedinteger[Any]]
"""Per sample (z, y, x) the number of its component, 0 where there is none."""


def vertebra_names(labels: Mapping[int, str]) -> dict[int, str]:
    """Of a network's ``labels`` those that are single vertebrae: label number → "C1" … "S1"."""
    found = {number: VERTEBRA.fullmatch(name) for number, name in labels.items()}
    return {number: match[1] for number, match in found.items() if match and match[1] in HEAD_TO_FOOT}


def sacrum_label(labels: Mapping[int, str]) -> int | None:
    """Of a network's ``labels`` that of the sacrum, None where it has none."""
    return next((number for number, name in labels.items() if name == SACRUM), None)


@dataclass(frozen=True)
class LabelMap:
    """What a network found: ``labels`` and the ``probabilities`` it gave them, both (z, y, x) on ``grid``.

    ``names`` are the label numbers that are vertebrae; other labels are passed over. ``runners_up``: what the network
    would have called its labels' voxels else, None where it was not asked. ``sacrum``: the label of what is below S1.
    """

    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float16]
    grid: grids.ModelGrid
    names: Mapping[int, str]
    runners_up: RunnersUp | None = None
    sacrum: int | None = None

    @property
    def spine(self) -> NDArray[np.bool_]:
        """Where there is a vertebra (z, y, x)."""
        named = np.zeros(256, np.bool_)
        named[list(self.names)] = True
        return named[self.labels]


@dataclass(frozen=True)
class Component:
    """A connected piece of one label, in samples of the model grid."""

    label: int
    voxels: int
    number: int
    low_xyz: tuple[int, int, int]
    high_xyz: tuple[int, int, int]
    mean_probability: float

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The part of an array (z, y, x) that holds it."""
        z, y, x = (slice(low, high + 1) for low, high in zip(self.low_xyz[::-1], self.high_xyz[::-1], strict=True))
        return z, y, x

    def mask(self, pieces: Pieces) -> NDArray[np.bool_]:
        """(z, y, x), of its box; ``pieces`` are all components' numbers."""
        mask: NDArray[np.bool_] = pieces[self.box] == self.number
        return mask


@dataclass(frozen=True)
class Measured:
    """Vertebrae from head to foot, and of labels that more than one body carries the others, which are none of them.

    ``components`` are what each of both was measured in, among ``pieces``.
    """

    vertebrae: list[Vertebra]
    repeated: list[Vertebra]
    components: Mapping[Vertebra, Component]
    pieces: Pieces

    def mask(self, vertebra: Vertebra) -> NDArray[np.bool_]:
        """(z, y, x), of the box of its component."""
        return self.components[vertebra].mask(self.pieces)


def measure(found: LabelMap, volume: Volume) -> list[Vertebra]:
    """The vertebrae alone, as `measure_all` finds them."""
    return measure_all(found, volume).vertebrae


def measure_all(found: LabelMap, volume: Volume) -> Measured:
    """Every vertebra of a label map over ``volume``, from head to foot, in the image's columns, rows and slices.

    Each is its label's largest connected component (26 neighbours): centre of mass, inclusive bounds, volume, and as
    confidence the mean probability of the label over the component. With the DICOM instance and pixel nearest to the
    centre, where the volume has instances.
    """
    pieces, by_label = _components(found)
    components: dict[Vertebra, Component] = {}
    measured: list[list[Vertebra]] = []
    for of_label in by_label:
        own = {_vertebra(one, pieces, found=found, volume=volume): one for one in of_label}
        components |= own
        measured.append([*own])
    measured.sort(key=lambda of_label: HEAD_TO_FOOT.index(of_label[0].label))
    repeated = [other for largest, *others in measured for other in others if _is_body_beside(other, largest)]
    return Measured([of_label[0] for of_label in measured], repeated, components, pieces)


def _is_body_beside(other: Vertebra, largest: Vertebra) -> bool:
    """Whether ``other``, which carries the same label, is a body of its own: so large, and so far away."""
    between_mm = math.dist(astuple(other.center_mm), astuple(largest.center_mm))
    large = other.volume_ml >= max(LEAST_REPEATED_ML, LEAST_REPEATED * largest.volume_ml)
    return large and between_mm > LEAST_APART * LEVEL_MM[largest.label[0]]


def _components(found: LabelMap) -> tuple[Pieces, list[list[Component]]]:
    """All components; and of each label the largest ones, most voxels first."""
    import cc3d

    labels = found.labels * found.spine
    pieces = cc3d.connected_components(labels, connectivity=26)
    statistics = cc3d.statistics(pieces, no_slice_conversion=True)
    counts = statistics["voxel_counts"]
    label_of = np.zeros(len(counts), np.uint8)
    label_of[pieces.ravel()] = labels.ravel()
    sums = np.bincount(pieces.ravel(), weights=found.probabilities.ravel(), minlength=len(counts))
    components = []
    for label in found.names:
        own = np.flatnonzero(label_of == label)
        if own.size == 0:
            continue
        largest = own[np.argsort(-counts[own].astype(np.int64), kind="stable")]
        several = largest[counts[largest] >= LEAST_REPEATED * counts[largest[0]]][:MOST_REPEATED]
        components.append([_component(label, int(piece), statistics, sums) for piece in several])
    return pieces, components


def _component(label: int, piece: int, statistics: Mapping[str, Any], sums: NDArray[np.float64]) -> Component:
    z0, z1, y0, y1, x0, x1 = (int(edge) for edge in statistics["bounding_boxes"][piece])
    voxels = int(statistics["voxel_counts"][piece])
    return Component(
        label=label,
        voxels=voxels,
        number=piece,
        low_xyz=(x0, y0, z0),
        high_xyz=(x1, y1, z1),
        mean_probability=float(sums[piece] / voxels),
    )


def _vertebra(component: Component, pieces: Pieces, *, found: LabelMap, volume: Volume) -> Vertebra:
    """``component`` measured among the volume's voxels, and told in the image's."""
    mask = component.mask(pieces)
    center = grids.volume_centroid(found.grid, mask, component.low_xyz)
    bounds = grids.volume_bounds(found.grid, component.low_xyz, component.high_xyz)
    image_center = volume.image_point(center)
    label = found.names[component.label]
    confidence = min(component.mean_probability, 1.0)
    return Vertebra(
        label=label,
        center=image_center,
        center_mm=grids.lps_mm(volume.affine_lps, center),
        bounds=volume.image_bounds(bounds),
        confidence=confidence,
        level_confidence=confidence,
        alternatives=(),
        volume_ml=component.voxels * grids.sample_volume_ml(found.grid, volume.affine_lps),
        truncated=_touches_edge(bounds, volume.size)
        or (volume.stored is not None and _leaves_slices(mask, component.low_xyz, found.grid, volume.stored)),
        body=_body(mask, label, component.low_xyz, found=found, volume=volume),
        slice=_slice_pixel(image_center, volume),
    )


def _body(
    mask: NDArray[np.bool_], level: str, low_xyz: Sequence[int], *, found: LabelMap, volume: Volume
) -> Body | None:
    """The middle of the body of the vertebra ``mask`` (z, y, x; from ``low_xyz`` on)."""
    edges = grids.image_edges(found.grid, volume.size, low_xyz, mask.shape)
    index = bodies.body_center(mask, level, grids.sample_spacing_mm(found.grid, volume.affine_lps), edges)
    if index is None:
        return None
    center = grids.volume_point(found.grid, [low + place for low, place in zip(low_xyz, index, strict=True)])
    image_center = volume.image_point(center)
    return Body(image_center, grids.lps_mm(volume.affine_lps, center), _slice_pixel(image_center, volume))


def _slice_pixel(image_center: Point, volume: Volume) -> SlicePixel | None:
    if not volume.instances:
        return None
    index = min(max(round(image_center.z), 0), len(volume.instances) - 1)
    nearest = volume.instances[index]
    return SlicePixel(
        sop_instance_uid=nearest.sop_instance_uid,
        instance_number=index + 1 if nearest.instance_number is None else nearest.instance_number,
        index=index,
        frame_number=nearest.frame + 1 if nearest.frames > 1 else None,
        x=round(image_center.x),
        y=round(image_center.y),
    )


def _touches_edge(bounds: Bounds, size: Voxel) -> bool:
    at_start = 0 in (bounds.min.x, bounds.min.y, bounds.min.z)
    return at_start or bounds.max.x == size.x - 1 or bounds.max.y == size.y - 1 or bounds.max.z == size.z - 1


def _leaves_slices(
    mask: NDArray[np.bool_], low_xyz: Sequence[int], grid: grids.ModelGrid, stored: StoredSlices
) -> bool:
    """Whether ``mask`` (z, y, x; from ``low_xyz`` on) reaches the edge of the slices that are stored at its heights.

    Sheared slices cover another part of the volume at each height, and what lies beside them was added.
    """
    places = {
        axis.source: (axis.first + (low + np.arange(count)) * axis.step, abs(axis.step) / 2)
        for axis, low, count in zip(grid.axes, low_xyz, mask.shape[::-1], strict=True)
    }
    along = {axis.source: 2 - index for index, axis in enumerate(grid.axes)}
    planes = mask.transpose([along[2], along[1], along[0]])
    for source, size in ((0, stored.image_size.x), (1, stored.image_size.y)):
        lines = planes.any(axis=1 if source == 0 else 2)
        positions, half = places[source]
        for height, line in zip(places[2][0], lines, strict=True):
            inside = positions[line] - stored.origin(height, source)
            if line.any() and (inside.min() - half <= 0 or inside.max() + half >= size - 1):
                return True
    return False


def extent(found: LabelMap) -> Bounds | None:
    """The volume's voxels that hold all vertebrae together, or None where there is none."""
    inside = found.spine
    low, high = [], []
    for axis in (2, 1, 0):
        across = tuple(other for other in range(3) if other != axis)
        planes = np.flatnonzero(inside.any(axis=across))
        if planes.size == 0:
            return None
        low.append(int(planes[0]))
        high.append(int(planes[-1]))
    return grids.volume_bounds(found.grid, low, high)
