"""Reads the tensors of a PyTorch checkpoint into numpy, without PyTorch and without running what the file asks for.

A checkpoint is a zip of a pickle and of raw tensor storages. A pickle may name any function to be called while it is
loaded; here only those that describe tensors mean something, and every other name becomes an inert `Placeholder`.
"""

import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from openscans.errors import DamagedWeights

Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

CHECKPOINT = "fold_0/checkpoint_final.pth"
"""Where it lies in a training's folder."""

STORAGE_TYPES: Mapping[str, np.dtype[np.generic]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}

LARGEST_PICKLE_BYTES = 256 * 2**20
"""Logs make up most of a pickle: 4000 epochs of 117 Dice scores take 22 MB. Ten times that is no checkpoint."""

ENCRYPTED = 0x1
"""The bit of a zip entry's flags that says so."""

PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by torch's DataParallel and by torch.compile."""

REPEATED = ("decoder.encoder.", ".all_modules.")
"""nnU-Net's modules hold some of their parts under several names; these are the second ones."""

BROKEN_PICKLE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
"""A pickle is a program; one that was damaged or tampered with fails in one of these ways."""


class Placeholder:
    """Stands for anything that a pickle names and that is not needed here. It does nothing, whatever is done to it."""

    def __new__(cls, *_args: object, **_named: object) -> "Placeholder":
        return super().__new__(cls)

    def __init__(self, *_args: object, **_named: object) -> None:
        pass

    def __call__(self, *_args: object, **_named: object) -> "Placeholder":
        return self

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _item: object) -> None:
        pass

    def extend(self, _items: object) -> None:
        pass


class _Dictionary(dict[object, object]):
    """Stands for an OrderedDict, but takes no attributes from the file."""

    def __setstate__(self, _state: object) -> None:
        pass


# Named tuples, since the state that a pickle gives to an object cannot change one.
class _Storage(NamedTuple):
    kind: str
    key: str


class _Tensor(NamedTuple):
    """A tensor that was described but not read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _describe_tensor(storage: object, offset: int, shape: object, strides: object, *_rest: object) -> object:
    if not isinstance(storage, _Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        return Placeholder()
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _describe_parameter(tensor: object, *_rest: object) -> object:
    return tensor


KNOWN: Mapping[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _describe_tensor,
    ("torch._utils", "_rebuild_parameter"): _describe_parameter,
    ("collections", "OrderedDict"): _Dictionary,
}


class _StorageType(NamedTuple):
    """A global like ``torch.FloatStorage``; called by nobody, named by persistent ids."""

    name: str


class _Unpickler(pickle.Unpickler):
    """Builds descriptions of tensors; no name in the file is ever looked up in a module."""

    def find_class(self, module: str, name: str) -> object:
        known = KNOWN.get((module, name))
        if known is not None:
            return known
        if module == "torch" and name in STORAGE_TYPES:
            return _StorageType(name)
        return Placeholder

    def persistent_load(self, pid: object) -> object:
        if not isinstance(pid, tuple) or len(pid) < 3 or pid[0] != "storage" or not isinstance(pid[1], _StorageType):
            return Placeholder()
        return _Storage(pid[1].name, str(pid[2]))


def read_tensors(path: Path) -> Tensors:
    """The ``network_weights`` of a checkpoint: name → array, float32; each tensor once, under its first name.

    Raises DamagedWeights where the file is not a checkpoint, is cut short, or describes what it does not hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(archive)
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DamagedWeights("The checkpoint is no complete PyTorch file.") from error


def _read(archive: zipfile.ZipFile) -> Tensors:
    root = _root(archive)
    _refuse_big_endian(archive, root)
    content = _unpickle(archive, f"{root}/data.pkl")
    weights = content.get("network_weights") if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise DamagedWeights("The checkpoint holds no network weights.")
    storages: dict[_Storage, NDArray[np.float32]] = {}
    tensors = {}
    for name, tensor in weights.items():
        if not isinstance(name, str) or any(part in f".{name}" for part in REPEATED):
            continue
        if isinstance(tensor, _Tensor):
            if tensor.storage not in storages:
                storages[tensor.storage] = _storage(archive, root, tensor.storage)
            tensors[_plain(name)] = _array(tensor, storages[tensor.storage])
    if not tensors:
        raise DamagedWeights("The checkpoint holds no tensors.")
    return tensors


def _plain(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _root(archive: zipfile.ZipFile) -> str:
    """The folder inside the zip, which has the name that the file had when it was saved."""
    pickles = [name for name in archive.namelist() if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1 or archive.getinfo(pickles[0]).file_size > LARGEST_PICKLE_BYTES:
        raise DamagedWeights("The checkpoint is of a format that is not read here.")
    return str(PurePosixPath(pickles[0]).parent)


def _refuse_big_endian(archive: zipfile.ZipFile, root: str) -> None:
    name = f"{root}/byteorder"
    if name in archive.namelist() and _content(archive, name).strip() != b"little":
        raise DamagedWeights("The checkpoint was written on a big-endian machine, which is not read here.")


def _content(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one entry. torch compresses none, so that no entry can unpack to more than the file holds."""
    try:
        entry = archive.getinfo(name)
    except KeyError as error:
        raise DamagedWeights("The checkpoint lacks a tensor that it names.") from error
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
        raise DamagedWeights("The checkpoint is compressed or encrypted, as PyTorch writes none.")
    return archive.read(entry)


def _unpickle(archive: zipfile.ZipFile, name: str) -> object:
    content = _content(archive, name)
    try:
        return cast("object", _Unpickler(io.BytesIO(content)).load())
    except BROKEN_PICKLE as error:
        raise DamagedWeights("The checkpoint's list of tensors cannot be read.") from error


def _storage(archive: zipfile.ZipFile, root: str, storage: _Storage) -> NDArray[np.float32]:
    content = _content(archive, f"{root}/data/{storage.key}")
    kind = STORAGE_TYPES[storage.kind]
    if len(content) % kind.itemsize:
        raise DamagedWeights("A tensor of the checkpoint is cut short.")
    values: NDArray[np.generic] = np.frombuffer(content, kind)
    if storage.kind == "BFloat16Storage":
        # bfloat16 is the upper half of a float32.
        wide: NDArray[np.uint32] = values.astype(np.uint32) << np.uint32(16)
        return wide.view(np.float32)
    return values.astype(np.float32, copy=False)


def _array(tensor: _Tensor, storage: NDArray[np.float32]) -> NDArray[np.float32]:
    if not _fits(tensor, storage.size):
        raise DamagedWeights("The checkpoint describes a tensor that it does not hold.")
    strides = [stride * storage.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view)


def _fits(tensor: _Tensor, size: int) -> bool:
    """Whether a storage of ``size`` elements holds all of ``tensor``, and each element at most once."""
    if len(tensor.shape) != len(tensor.strides) or min(tensor.offset, *tensor.strides, *tensor.shape, 0) < 0:
        return False
    steps = [stride * (length - 1) for length, stride in zip(tensor.shape, tensor.strides, strict=True)]
    return 0 < math.prod(tensor.shape) <= size and tensor.offset + sum(steps) < size
