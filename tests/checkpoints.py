"""Checkpoints as PyTorch writes them, made byte by byte: those that no PyTorch would write can be made too."""

import io
import math
import struct
import zipfile
from collections.abc import Mapping

ROOT = "checkpoint_final"
"""The folder inside the zip."""

PROTO, STOP = b"\x80\x02", b"."


def text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def whole(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(whole, values)) + b"t"


def storage(key: str = "0", kind: str = "FloatStorage", count: int = 0) -> bytes:
    """What stands for a storage of ``count`` numbers in the entry ``key``."""
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + whole(count) + b"tQ"


def tensor(stored: bytes, shape: tuple[int, ...], *, strides: tuple[int, ...] | None = None, offset: int = 0) -> bytes:
    """A call of PyTorch's that makes a tensor of a storage."""
    steps = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))] if strides is None else strides
    described = whole(offset) + numbers(*shape) + numbers(*steps)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored + described + b"\x89ccollections\nOrderedDict\n)RtR"


def dictionary(items: Mapping[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(name) + value for name, value in items.items()) + b"u"


def pickled(weights: Mapping[str, bytes]) -> bytes:
    """A pickle of network weights: name → what makes a tensor."""
    return PROTO + dictionary({"network_weights": dictionary(weights), "current_epoch": whole(1)}) + STOP


def zipped(pickle: bytes, storages: Mapping[str, bytes]) -> bytes:
    """The checkpoint's file; the same bytes every time."""
    contents = {"data.pkl": pickle, "byteorder": b"little"} | {f"data/{key}": one for key, one in storages.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), content)
    return file.getvalue()


def checkpoint(content: bytes, *, kind: str = "ByteStorage", width: int = 1) -> bytes:
    """A checkpoint of one tensor, which is ``content``: numbers of a ``kind`` that takes ``width`` bytes for each."""
    count = len(content) // width
    return zipped(pickled({"a": tensor(storage("0", kind, count), (count,))}), {"0": content})


OVERHEAD_BYTES = len(checkpoint(b"1")) - 1
"""What a checkpoint of one tensor takes beside it."""
