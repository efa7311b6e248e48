"""Two hundred weights that are made to hurt: each is one change to a training that is read without it.

Run as a program it looks at the trainings whose folders it is told, within so much memory, and says what became of it.
"""

import json
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

from phantom import layout, specs
from tests import checkpoints
from tests.checkpoints import PROTO, ROOT, STOP, dictionary, pickled, storage, tensor, text, whole, zipped

Json = dict[str, Any]
Way = tuple[str, ...]

SPEC = specs.small(specs.SPECS[292], base_features=4, max_features=16, patch_zyx=(64, 64, 64))

MOST_MEMORY_BYTES = 1_000_000_000
"""Beyond what the process takes before, and the file's size."""

CHECKPOINT = "fold_0/checkpoint_final.pth"

Spoil = Callable[[Path], None]
"""Changes a training's folder."""


@dataclass(frozen=True)
class HostileWeights:
    name: str
    spoil: Spoil


class Long(NamedTuple):
    """Content that is made when it is written: ``unit`` so many times, between others."""

    head: bytes
    unit: bytes
    count: int
    tail: bytes = STOP

    def __bytes__(self) -> bytes:
        return self.head + self.unit * self.count + self.tail


def write_training(folder: Path, *, new_plans: bool = False) -> None:
    """What is read without a fault, of a small network."""
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(layout.plans_of(SPEC, new_plans=new_plans)))
    (folder / "dataset.json").write_text(json.dumps(layout.dataset_of(SPEC)))
    (folder / CHECKPOINT).write_bytes(checkpoints.checkpoint(bytes(1000)))


def everything() -> list[HostileWeights]:
    return [*fields_out_of_range(), *numbers_that_matter(), *hostile_json(), *hostile_pickles(), *hostile_zips()]


# plans.json and dataset.json, field by field

BAD_NUMBERS = (float("nan"), 10**400, float("inf"), -1e300, "1", 1e308, [[[[1]]]], -(10**400), {}, float("-inf"))
"""None of them is in the range of any field."""

OWN_FIELDS = {("notice",)}
"""What our own files say beside nnU-Net's fields."""


def fields_out_of_range() -> Iterator[HostileWeights]:
    """Each field of both formats in turn: two values that it cannot have, and more of them than it can have."""
    bad = cycle(BAD_NUMBERS)
    for file, new_plans, document in documents():
        for way, value in leaves(document):
            if way in OWN_FIELDS or value is None:
                continue
            if is_number(value):
                wrong = [with_first(value, next(bad)), with_first(value, next(bad)), [1] * 10**5]
            else:
                wrong = [["x" * 10**5], 7]
            for number, content in enumerate(wrong):
                name = f"{file}{' (new)' if new_plans else ''}: {'.'.join(way)}, {number}"
                yield HostileWeights(name, changed(file, way, content, new_plans=new_plans))


def documents() -> Iterator[tuple[str, bool, Json]]:
    """File, whether in the new format, and what of it is looked at: what both formats share only once."""
    old, new = (layout.plans_of(SPEC, new_plans=new_plans) for new_plans in (False, True))
    labels = {"background": 0, **dict(list(layout.dataset_of(SPEC)["labels"].items())[1:3])}
    yield "plans.json", False, old
    yield "plans.json", True, {"configurations": {layout.CONFIGURATION: {"architecture": architecture_of(new)}}}
    yield "dataset.json", False, layout.dataset_of(SPEC) | {"labels": labels}


def architecture_of(plans: Json) -> Json:
    found: Json = plans["configurations"][layout.CONFIGURATION]["architecture"]
    return found


def leaves(value: Json, way: Way = ()) -> Iterator[tuple[Way, object]]:
    """Way and content of every field that holds no further fields."""
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from leaves(inner, (*way, key))
        else:
            yield (*way, key), inner


def is_number(value: object) -> bool:
    """Also a list of numbers."""
    while isinstance(value, list):
        value = value[0]
    return isinstance(value, int | float) and not isinstance(value, bool)


def with_first(value: object, wrong: object) -> object:
    """``wrong``, or ``value`` with its first number replaced by it."""
    return [with_first(value[0], wrong), *value[1:]] if isinstance(value, list) else wrong


def changed(file: str, way: Way, content: object, *, new_plans: bool = False) -> Spoil:
    def spoil(folder: Path) -> None:
        write_training(folder, new_plans=new_plans)
        document = json.loads((folder / file).read_text())
        fields = document
        for key in way[:-1]:
            fields = fields[key]
        fields[way[-1]] = content
        (folder / file).write_text(json.dumps(document))

    return spoil


IN_CONFIGURATION = ("configurations", layout.CONFIGURATION)
IN_ARCHITECTURE = (*IN_CONFIGURATION, "architecture", "arch_kwargs")
STATISTICS = ("foreground_intensity_properties_per_channel", "0")


def numbers_that_matter() -> Iterator[HostileWeights]:
    """What is a number, and what no network has."""
    named: Mapping[str, tuple[Way, object]] = {
        "patch of 0": ((*IN_CONFIGURATION, "patch_size"), [0, 64, 64]),
        "negative patch": ((*IN_CONFIGURATION, "patch_size"), [-64, -64, 64]),
        "patch of a billion": ((*IN_CONFIGURATION, "patch_size"), [10**9, 64, 64]),
        "patch that is whole only in value": ((*IN_CONFIGURATION, "patch_size"), [64.0, 64, 64]),
        "large patch": ((*IN_CONFIGURATION, "patch_size"), [1024, 1024, 1024]),
        "spacing of 0": ((*IN_CONFIGURATION, "spacing"), [0, 0, 0]),
        "negative spacing": ((*IN_CONFIGURATION, "spacing"), [-1.5, 1.5, 1.5]),
        "std of 0": ((*STATISTICS, "std"), 0),
        "negative std": ((*STATISTICS, "std"), -1.0),
        "window of intensities that is empty": ((*STATISTICS, "percentile_00_5"), 9999.0),
        "stride of 0": ((*IN_CONFIGURATION, "pool_op_kernel_sizes"), [[1, 1, 1], *[[2, 0, 2]] * 5]),
        "negative stride": ((*IN_CONFIGURATION, "pool_op_kernel_sizes"), [[1, 1, 1], *[[-2, -2, -2]] * 5]),
        "labels coarser than the image": ((*IN_CONFIGURATION, "pool_op_kernel_sizes"), [[2, 2, 2]] * 6),
        "even kernel": ((*IN_CONFIGURATION, "conv_kernel_sizes"), [[2, 2, 2]] * 6),
        "no stages": ((*IN_CONFIGURATION, "n_conv_per_stage_encoder"), []),
        "a stage without convolutions": ((*IN_CONFIGURATION, "n_conv_per_stage_encoder"), [2, 0, 2, 2, 2, 2]),
        "features of 0": ((*IN_CONFIGURATION, "UNet_base_num_features"), 0),
        "a billion features": ((*IN_CONFIGURATION, "unet_max_num_features"), 10**9),
        "a label below 0": (("labels",), {"background": 0, "L1": -1}),
        "a label that is true": (("labels",), {"background": 0, "L1": True}),
        "a hundred thousand labels": (("labels",), {str(f"l{number}"): number for number in range(10**5)}),
        "labels of ten thousand digits": (("labels",), {"9" * 10**4: "L1"}),
    }
    for name, (way, content) in named.items():
        yield HostileWeights(name, changed("dataset.json" if way[0] == "labels" else "plans.json", way, content))
    new: Mapping[str, tuple[str, object]] = {
        "a billion convolutions a stage": ("n_conv_per_stage", 10**9),
        "two hundred million stages": ("n_stages", 2 * 10**8),
        "negative stages": ("n_stages", -6),
        "epsilon of 0": ("norm_op_kwargs", {"eps": 0}),
        "infinite slope": ("nonlin_kwargs", {"negative_slope": float("inf")}),
    }
    for name, (key, content) in new.items():
        yield HostileWeights(name, changed("plans.json", (*IN_ARCHITECTURE, key), content, new_plans=True))


def hostile_json() -> Iterator[HostileWeights]:
    contents: Mapping[str, bytes | Long] = {
        "180 MB": Long(b'{"a": "', b"a", 180_000_000, b'"}'),
        "deep lists": Long(b'{"a": ' + b"[" * 10**6, b"]", 10**6, b"}"),
        "deep objects": Long(b'{"a":' * 10**6 + b"1", b"}", 10**6, b""),
        "deep lists without an end": b"[" * 10**6,
        "a million lists": Long(b'{"a": [', b"[],", 10**6, b"[]]}"),
        "a number of a million digits": b'{"configurations": ' + b"9" * 10**6 + b"}",
        "a list": b"[" + b"1," * 10**6 + b"1]",
        "a number": b"1e400",
        "no UTF-8": b'{"a": "\xff"}',
        "NULs": bytes(10**6),
        "nothing": b"",
    }
    for name, content in contents.items():
        for file in ("plans.json", "dataset.json"):
            yield HostileWeights(f"{file}: {name}", written(file, content))


def written(file: str, content: bytes | Long) -> Spoil:
    def spoil(folder: Path) -> None:
        write_training(folder)
        (folder / file).write_bytes(bytes(content))

    return spoil


# The checkpoint's pickle

MANY = 2_000_000
ONE = tensor(storage(count=250), (250,))

RUNGS = b"".join(b"h%ch%c\x86q%c0" % (step, step, step + 1) for step in range(100))
LADDER = b")q\x000" + RUNGS + b"h\x64"
"""A tuple of twice the same, of twice the same, a hundred times: to compare it looks at all 2¹⁰⁰."""


def hostile_pickles() -> Iterator[HostileWeights]:
    pickles: Mapping[str, bytes | Long] = {
        "22 bytes whose memo takes 5 GB": PROTO + text("abcdefgh")[:13] + b"r\xff\xff\xff\x13" + STOP,
        "memo with a hole": PROTO + b"Nq\x05" + STOP,
        "memo of nothing": PROTO + b"\x94" + STOP,
        "memo that is asked too early": PROTO + b"h\x00" + STOP,
        "memo that never ends": Long(PROTO + b"N", b"\x94", MANY),
        "60 MB of list ends": Long(PROTO + b"]", b"e", 60_000_000),
        "lists that are filled without end": Long(PROTO + b"]", b"(e", MANY),
        "lists without end": Long(PROTO, b"]", MANY),
        "marks without end": Long(PROTO, b"(", MANY),
        "tuples within tuples": Long(PROTO + b")", b"\x85", MANY),
        "tuples that are remembered": Long(PROTO, b")\x85\x94", MANY),
        "dictionaries without end": Long(PROTO, b"}", MANY),
        "calls for dictionaries without end": Long(PROTO, b"ccollections\nOrderedDict\n)R", MANY // 4),
        "sets without end": Long(PROTO, b"\x8f", MANY),
        "texts without end": Long(PROTO, b"\x8c\x02ab\x94", MANY),
        "numbers without end": Long(PROTO, b"J\xff\xff\xff\x7f", MANY),
        "names without end": Long(PROTO, b"ca\nb\n", MANY),
        "a text of 4 GB": PROTO + b"X\xff\xff\xff\xff" + STOP,
        "a text of 8 EB": PROTO + b"\x8d" + b"\xff" * 7 + b"\x7f" + STOP,
        "a text that is wide": PROTO + b"X" + struct.pack("<I", 30_000_004) + "\U0001f9b4".encode() + b"a" * 30_000_000,
        "a text that is none": PROTO + b"X\x02\x00\x00\x00\xff\xff" + STOP,
        "bytes of 4 EB": PROTO + b"\x8e" + b"\xff" * 7 + b"\x3f" + STOP,
        "an array of 4 EB": PROTO + b"\x96" + b"\xff" * 7 + b"\x3f" + STOP,
        "a number of 2 GB": PROTO + b"\x8b\xff\xff\xff\x7f" + STOP,
        "a number of less than nothing": PROTO + b"\x8b\xff\xff\xff\xff" + STOP,
        "a number of 20 MB": PROTO + b"\x8b" + struct.pack("<I", 20_000_000) + b"\x7f" * 20_000_000 + STOP,
        "a frame of 8 EB": PROTO + b"\x95" + b"\xff" * 7 + b"\x7f" + STOP,
        "a name without an end": Long(PROTO + b"c", b"a", 20_000_000),
        "keys that take for ever to compare": PROTO + b"}" + LADDER + b"Ns" + STOP,
        "a long list that is copied without end": Long(
            PROTO + b"](" + b"N" * 10**6 + b"e\x94", b"ccollections\nOrderedDict\nh\x00\x85R", 10**5
        ),
        "sets that take for ever to compare": PROTO + b"\x8f(" + LADDER + b"\x90" + STOP,
        "a dictionary in itself": PROTO + b"}q\x00" + text("network_weights") + b"h\x00s" + STOP,
        "a long list, copied without end": PROTO
        + b"]("
        + b"N" * 1000
        + b"e\x94"
        + b"ccollections\nOrderedDict\nh\x00\x85R" * 10**5,
        "a state for a function": PROTO + b"ctorch._utils\n_rebuild_tensor_v2\n}" + text("__code__") + b"Nsb" + STOP,
        "an end at once": PROTO + STOP,
        "nothing": b"",
        "no end": pickled({"a": ONE})[:-40],
        "an extension": PROTO + b"\x82\x01" + STOP,
        "a buffer from elsewhere": PROTO + b"\x97" + STOP,
        "an instance of protocol 0": b"(ios\nsystem\n" + STOP,
        "weights that are a list": PROTO + dictionary({"network_weights": b"]", "epoch": whole(1)}) + STOP,
        "no tensors": pickled({}),
        "a storage that is none": pickled({"a": tensor(b"NQ", (250,))}),
        "numbers of no kind": pickled({"a": tensor(storage(kind="UntypedStorage"), (250,))}),
        "numbers that are names": pickled({"a": tensor(storage(kind="EvilStorage"), (250,))}),
        "a storage that is not there": pickled({"a": tensor(storage("7"), (250,))}),
        "a storage outside": pickled({"a": tensor(storage("../../../../etc/passwd"), (250,))}),
        "sixty names for one storage": pickled({f"a{number}": ONE for number in range(60)}),
        "sixty shapes of one storage": pickled(
            {f"a{number}": tensor(storage(), (1,) * (number % 6) + (250 - number,)) for number in range(60)}
        ),
        "a tensor of a million axes": pickled({"a": tensor(storage(), (1,) * 10**5, strides=(1,) * 10**5)}),
        "a tensor of 8 EB": pickled({"a": tensor(storage(), (2**62,))}),
        "a tensor whose size is no number": pickled({"a": tensor(storage(), (2**62, 2**62, 2**62), strides=(1, 1, 1))}),
        "a tensor of one number": pickled({"a": tensor(storage(), (2**40,), strides=(0,))}),
        "a tensor that goes backwards": pickled({"a": tensor(storage(), (250,), strides=(-1,), offset=249)}),
        "a tensor behind its storage": pickled({"a": tensor(storage(), (250,), offset=2**62)}),
        "a tensor before its storage": pickled({"a": tensor(storage(), (2,), offset=-1)}),
        "a tensor of less than nothing": pickled({"a": tensor(storage(), (-1, -250))}),
    }
    for name, content in pickles.items():
        yield HostileWeights(f"pickle: {name}", with_pickle(content))


def with_pickle(content: bytes | Long) -> Spoil:
    def spoil(folder: Path) -> None:
        write_training(folder)
        (folder / CHECKPOINT).write_bytes(zipped(bytes(content), {"0": bytes(1000)}))

    return spoil


# The checkpoint's zip


def hostile_zips() -> Iterator[HostileWeights]:
    good = pickled({"a": ONE})
    yield HostileWeights("zip: a pickle that unpacks to 200 MB", packed("data.pkl", Long(b"", b"\0", 200_000_000)))
    yield HostileWeights("zip: a storage that unpacks to 200 MB", packed("data/0", Long(b"", b"\0", 200_000_000)))
    yield HostileWeights("zip: two pickles", written(CHECKPOINT, zipped(good, {"0": bytes(1000), "data.pkl": good})))
    yield HostileWeights("zip: sixty entries for the same bytes", with_shared_bytes)
    yield HostileWeights("zip: an entry that says more than there is", with_lies)
    yield HostileWeights("zip: half a million entries", with_many_entries)
    yield HostileWeights("zip: cut short", written(CHECKPOINT, zipped(good, {"0": bytes(1000)})[:-30]))
    yield HostileWeights("zip: none", written(CHECKPOINT, b"PK\x03\x04" + bytes(10**6)))


def packed(name: str, content: Long) -> Spoil:
    def spoil(folder: Path) -> None:
        write_training(folder)
        contents = {"data.pkl": pickled({"a": ONE}), "data/0": bytes(1000)} | {name: bytes(content)}
        with zipfile.ZipFile(folder / CHECKPOINT, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for entry, inner in contents.items():
                archive.writestr(f"{ROOT}/{entry}", inner)

    return spoil


def with_shared_bytes(folder: Path) -> None:
    """Sixty storages, each said to lie where the first one lies."""
    write_training(folder)
    tensors = {f"a{number}": tensor(storage(str(number)), (250_000,)) for number in range(60)}
    content = bytearray(zipped(pickled(tensors), {str(number): b"" for number in range(1, 60)} | {"0": bytes(10**6)}))
    with zipfile.ZipFile(folder / CHECKPOINT, "w") as archive:
        (folder / CHECKPOINT).write_bytes(content)
        archive.filelist.clear()
    with zipfile.ZipFile(folder / CHECKPOINT, "a") as archive:
        first = archive.getinfo(f"{ROOT}/data/0")
        for entry in archive.filelist:
            if "/data/" in entry.filename:
                entry.header_offset, entry.CRC = first.header_offset, first.CRC
                entry.file_size = entry.compress_size = first.file_size
        archive.writestr(f"{ROOT}/version", b"3")


def with_lies(folder: Path) -> None:
    write_training(folder)
    (folder / CHECKPOINT).write_bytes(zipped(pickled({"a": tensor(storage(), (25_000,))}), {"0": bytes(1000)}))
    with zipfile.ZipFile(folder / CHECKPOINT, "a") as archive:
        archive.getinfo(f"{ROOT}/data/0").file_size = 100_000
        archive.writestr(f"{ROOT}/version", bytes(200_000))


def with_many_entries(folder: Path) -> None:
    """A list of files alone, of which each is an empty one."""
    write_training(folder)
    entry = b"PK\x01\x02" + bytes(24) + struct.pack("<H", 4) + bytes(16)
    count = 500_000
    entries = b"".join(entry + struct.pack("<I", number) for number in range(count))
    end = b"PK\x05\x06" + bytes(4) + struct.pack("<HHIIH", 0xFFFF, 0xFFFF, len(entries), 0, 0)
    (folder / CHECKPOINT).write_bytes(entries + end)


# As a program


def look(folder: Path) -> list[str]:
    """What the service says to the weights in ``folder``: before they are put in place, and when they are loaded."""
    from openscans import networks
    from openscans.errors import DamagedWeights
    from openscans.networks.checkpoint import read_tensors

    said = []
    for look_at, path in (
        (networks.check_training, folder),
        (networks.read_plan, folder),
        (read_tensors, folder / CHECKPOINT),
    ):
        try:
            look_at(path)
            said.append("taken")
        except DamagedWeights:
            said.append("refused")
    return said


def look_within_bounds(folder: Path, before_bytes: int) -> list[str]:
    """`look`, with no more memory than the files' size and `MOST_MEMORY_BYTES` beyond what the process took before."""
    import resource

    size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    most_bytes = before_bytes + size_bytes + MOST_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most_bytes, resource.RLIM_INFINITY))
    try:
        return look(folder)
    except Exception as error:  # noqa: BLE001 - told to who asks
        return [f"{type(error).__name__}: {error}"[:200]]


def main() -> None:
    import numpy as np

    np.zeros(1)
    before_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    for line in sys.stdin:
        said = look_within_bounds(Path(line.rstrip("\n")), before_bytes)
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
