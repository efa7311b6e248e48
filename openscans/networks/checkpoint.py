"""Reads the tensors of a PyTorch checkpoint into numpy, without PyTorch and without running what the file asks for.

A checkpoint is a zip of a pickle, which `weights_pickle` reads, and of raw tensor storages. No more is read than the
file holds: storages are stored as they are, each is read once, and no number belongs to two tensors.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from openscans.errors import DamagedWeights
from openscans.networks.weights_pickle import DescribedTensor, StoredNumbers, read_weights
from openscans.system.zip_files import BROKEN_ZIP, open_zip

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

CHUNK_BYTES = 2**20

MOST_NUMBERS = 2**27
"""Of all tensors together: four times those of the largest network that nnU-Net plans, 512 MB as float32."""

ENCRYPTED = 0x1
"""The bit of a zip entry's flags that says so."""

PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by torch's DataParallel and by torch.compile."""

REPEATED = ("decoder.encoder.", ".all_modules.")
"""nnU-Net's modules hold some of their parts under several names; these are the second ones."""


def read_tensors(path: Path) -> Tensors:
    """The ``network_weights`` of a checkpoint: name → array, float32; each tensor once, under its first name.

    Raises DamagedWeights where the file is not a checkpoint, is cut short, or describes what it does not hold.
    """
    with _open(path) as checkpoint:
        described = checkpoint.describe()
        numbers = {storage: checkpoint.read(storage) for storage in _storages(described.values())}
        return {name: _array(tensor, numbers[tensor.storage]) for name, tensor in described.items()}


def check_checkpoint(path: Path) -> None:
    """Raises DamagedWeights where `read_tensors` would, as far as can be told without reading a tensor's numbers."""
    with _open(path) as checkpoint:
        checkpoint.describe()


@dataclass(frozen=True)
class _Checkpoint:
    """The zip of a checkpoint, and the folder inside it, which has the name that the file had when it was saved."""

    archive: zipfile.ZipFile
    root: str

    @classmethod
    def of(cls, archive: zipfile.ZipFile, file_bytes: int) -> "_Checkpoint":
        entries = archive.infolist()
        pickles = [entry for entry in entries if PurePosixPath(entry.filename).name == "data.pkl"]
        if len(pickles) != 1 or pickles[0].file_size > LARGEST_PICKLE_BYTES:
            raise DamagedWeights("The checkpoint is of a format that is not read here.")
        if sum(entry.file_size for entry in entries) > file_bytes:
            raise DamagedWeights("The checkpoint is compressed, or holds some bytes twice, as PyTorch writes none.")
        checkpoint = cls(archive, str(PurePosixPath(pickles[0].filename).parent))
        checkpoint._refuse_big_endian()
        return checkpoint

    def describe(self) -> dict[str, DescribedTensor]:
        """The tensors by their first names. Raises DamagedWeights unless the file holds them, and no number twice."""
        found = read_weights(self._content("data.pkl"))
        described = {_plain(name): tensor for name, tensor in found.items() if not _is_repeated(name)}
        if not described:
            raise DamagedWeights("The checkpoint holds no tensors.")
        sizes = {storage: self._size(storage) for storage in _storages(described.values())}
        if not all(_fits(tensor, sizes[tensor.storage]) for tensor in described.values()):
            raise DamagedWeights("The checkpoint describes a tensor that it does not hold.")
        total = sum(math.prod(tensor.shape) for tensor in described.values())
        if total > min(sum(sizes.values()), MOST_NUMBERS):
            raise DamagedWeights("The checkpoint describes more numbers than it holds, or than any network has.")
        return described

    def read(self, storage: StoredNumbers) -> NDArray[np.generic]:
        """All numbers of ``storage``, of its own kind."""
        return np.frombuffer(self._content(f"data/{storage.key}"), STORAGE_TYPES[storage.kind])

    def _size(self, storage: StoredNumbers) -> int:
        """How many numbers are in ``storage``."""
        kind = STORAGE_TYPES.get(storage.kind)
        if kind is None:
            raise DamagedWeights("The checkpoint holds numbers of a kind that is not read here.")
        count, rest = divmod(self._entry(f"data/{storage.key}").file_size, kind.itemsize)
        if rest:
            raise DamagedWeights("A tensor of the checkpoint is cut short.")
        return count

    def _entry(self, name: str) -> zipfile.ZipInfo:
        """One entry. PyTorch compresses none, so that no entry can unpack to more than the file holds."""
        try:
            entry = self.archive.getinfo(f"{self.root}/{name}")
        except KeyError as error:
            raise DamagedWeights("The checkpoint lacks a tensor that it names.") from error
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
            raise DamagedWeights("The checkpoint is compressed or encrypted, as PyTorch writes none.")
        return entry

    def _content(self, name: str) -> bytearray:
        entry = self._entry(name)
        content = bytearray()
        with self.archive.open(entry) as source:
            while chunk := source.read(CHUNK_BYTES):
                content += chunk
        # The list of entries may say more than there is.
        if len(content) != entry.file_size:
            raise DamagedWeights("A part of the checkpoint is cut short.")
        return content

    def _refuse_big_endian(self) -> None:
        if f"{self.root}/byteorder" in self.archive.namelist() and self._content("byteorder").strip() != b"little":
            raise DamagedWeights("The checkpoint was written on a big-endian machine, which is not read here.")


@contextmanager
def _open(path: Path) -> Iterator[_Checkpoint]:
    try:
        with open_zip(path) as archive:
            yield _Checkpoint.of(archive, path.stat().st_size)
    except (OSError, *BROKEN_ZIP) as error:
        raise DamagedWeights("The checkpoint is no complete PyTorch file.") from error


def _storages(tensors: Iterable[DescribedTensor]) -> Iterable[StoredNumbers]:
    return dict.fromkeys(tensor.storage for tensor in tensors)


def _is_repeated(name: str) -> bool:
    return any(part in f".{name}" for part in REPEATED)


def _plain(name: str) -> str:
    while name.startswith(PREFIXES):
        name = name.partition(".")[2]
    return name


def _array(tensor: DescribedTensor, numbers: NDArray[np.generic]) -> NDArray[np.float32]:
    """``tensor``, float32 and contiguous, out of the ``numbers`` of its storage."""
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)
    if tensor.storage.kind == "BFloat16Storage":
        # bfloat16 is the upper half of a float32.
        wide: NDArray[np.uint32] = view.astype(np.uint32, order="C") << np.uint32(16)
        return wide.view(np.float32)
    return view.astype(np.float32, order="C", copy=False)


def _fits(tensor: DescribedTensor, size: int) -> bool:
    """Whether a storage of ``size`` numbers holds all of ``tensor``, and each number at most once."""
    if len(tensor.shape) != len(tensor.strides) or min(tensor.offset, *tensor.strides, *tensor.shape, 0) < 0:
        return False
    steps = [stride * (length - 1) for length, stride in zip(tensor.shape, tensor.strides, strict=True)]
    return 0 < math.prod(tensor.shape) <= size and tensor.offset + sum(steps) < size
