"""A path becomes an `Image`, and that a `Volume`; the only room that knows pydicom, nibabel, SimpleITK and decoders.

`open` looks at the headers, once; the image then reads its voxels. It knows nothing of labels, networks or HTTP.

Three frames meet here. *image*: columns, rows and slices of a series as stored (slices sorted along their normal), or a
NIfTI's array indices. *volume*: the upright, evenly spaced array in memory; the same as the image unless its gantry was
tilted or its slices lie unevenly. *LPS mm*: the patient (PS3.3 C.7.6.2.1.1). `Volume` has the one way between any two.
"""

from openscans.volumes import lean_pydicom  # noqa: F401 - before the modules that import pydicom
from openscans.volumes.image import Image
from openscans.volumes.intensities import AIR_HU, Intensities, look_at_intensities
from openscans.volumes.modality import assumed_ct_warnings
from openscans.volumes.opening import LastOpened
from openscans.volumes.opening import open_image as open  # noqa: A004 - what the rooms above write is `volumes.open`
from openscans.volumes.volume import Affine, Extent, Instance, Volume

__all__ = [
    "AIR_HU",
    "Affine",
    "Extent",
    "Image",
    "Instance",
    "Intensities",
    "LastOpened",
    "Volume",
    "assumed_ct_warnings",
    "look_at_intensities",
    "open",
]
