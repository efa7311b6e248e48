"""A path becomes an `Image`, and that a `Volume`; the only room that knows pydicom, nibabel, SimpleITK and decoders.

`open` looks at the headers, once; the image then reads its voxels. It knows nothing of labels, networks or HTTP.
"""

from openscans.volumes.image import Image
from openscans.volumes.opening import LastOpened
from openscans.volumes.opening import open_image as open  # noqa: A004 - what the rooms above write is `volumes.open`
from openscans.volumes.volume import Extent, Instance, Volume

__all__ = ["Extent", "Image", "Instance", "LastOpened", "Volume", "open"]
