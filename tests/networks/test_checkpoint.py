"""Reading checkpoints without PyTorch: the tensors are those that PyTorch reads, and no code of the file ever runs."""

import builtins
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")


from openscans.errors import DamagedWeights
from openscans.networks.checkpoint import read_tensors
from openscans.networks.pickle_machine import MOST_STEPS
from tests import checkpoints, small_networks

NUMBERS = torch.linspace(-3, 3, 24).reshape(2, 3, 4)


def saved(folder: Path, weights: object, **beside: object) -> Path:
    path = folder / "checkpoint_final.pth"
    torch.save({"network_weights": weights, **beside}, path)
    return path


def rewritten(path: Path, entry: str, change: Callable[[bytes], bytes | None]) -> Path:
    """The checkpoint with the ``entry`` of its zip changed, or without it where ``change`` gives None."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            new = change(content) if name.partition("/")[2] == entry else content
            if new is not None:
                archive.writestr(name, new)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_tensors_equal_those_that_torch_reads(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path, {"a": NUMBERS.to(dtype), "b": (NUMBERS * 7).to(dtype)})
    theirs = torch.load(path, weights_only=True)["network_weights"]
    ours = read_tensors(path)
    assert list(ours) == ["a", "b"]
    for name, array in ours.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, theirs[name].float().numpy())


def test_a_whole_checkpoint_equals_what_torch_reads(tmp_path: Path) -> None:
    path = small_networks.write(tmp_path, small_networks.MR) / "fold_0" / "checkpoint_final.pth"
    theirs = torch.load(path, weights_only=False)["network_weights"]
    ours = read_tensors(path)
    assert set(ours) == {name for name in theirs if "all_modules" not in name and "decoder.encoder" not in name}
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name].numpy())


@pytest.mark.parametrize(
    "tensor", [NUMBERS.permute(2, 0, 1), NUMBERS[:, 1:, ::2], NUMBERS[1], NUMBERS.t() if NUMBERS.ndim == 2 else NUMBERS]
)
def test_tensors_that_are_views_come_out_whole(tmp_path: Path, tensor: torch.Tensor) -> None:
    array = read_tensors(saved(tmp_path, {"a": tensor}))["a"]
    np.testing.assert_array_equal(array, tensor.numpy())
    assert array.flags.c_contiguous


def test_tensors_that_share_a_storage_are_each_read(tmp_path: Path) -> None:
    tensors = read_tensors(saved(tmp_path, {"first": NUMBERS[0], "second": NUMBERS[1]}))
    np.testing.assert_array_equal(tensors["first"], NUMBERS[0].numpy())
    np.testing.assert_array_equal(tensors["second"], NUMBERS[1].numpy())


def test_parameters_are_read_like_tensors(tmp_path: Path) -> None:
    tensors = read_tensors(saved(tmp_path, OrderedDict(a=torch.nn.Parameter(NUMBERS))))
    np.testing.assert_array_equal(tensors["a"], NUMBERS.numpy())


def test_second_names_of_the_same_tensors_are_left_out(tmp_path: Path) -> None:
    names = ["encoder.a.conv.weight", "decoder.encoder.a.conv.weight", "encoder.a.all_modules.0.weight"]
    assert list(read_tensors(saved(tmp_path, dict.fromkeys(names, NUMBERS)))) == names[:1]


@pytest.mark.parametrize("count", [1, 2, 999, 1000, 1001, 1002])
@pytest.mark.parametrize("beside", [{}, {"epoch": 1}, {"optimizer": {"a": 1, "b": 2}, "logs": [1, 2], "epoch": 1}])
def test_all_tensors_are_read_however_many_there_are_and_whatever_follows(
    tmp_path: Path, count: int, beside: dict[str, object]
) -> None:
    # A pickle holds a dictionary's items by the thousand, and one that is left over by itself.
    weights = {f"t{number}": NUMBERS[:1] + number for number in range(count)}
    tensors = read_tensors(saved(tmp_path, weights, **beside))
    assert list(tensors) == list(weights)
    np.testing.assert_array_equal(tensors[f"t{count - 1}"], weights[f"t{count - 1}"].numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles_that_pytorch_writes_is_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "checkpoint_final.pth"
    beside = {"logs": [np.float64(0.5), {1, 2}, b"bytes", bytearray(3), 2**100, None], "epoch": 1}
    torch.save({"network_weights": OrderedDict(a=NUMBERS), **beside}, path, pickle_protocol=protocol)
    np.testing.assert_array_equal(read_tensors(path)["a"], NUMBERS.numpy())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_weights_behind_all_else_are_read(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "checkpoint_final.pth"
    beside = {"logs": [np.float64(0.5), {1, 2}, frozenset("a"), b"bytes", bytearray(3), 2**100, None], "epoch": 1.5}
    torch.save({**beside, "network_weights": OrderedDict(a=NUMBERS)}, path, pickle_protocol=protocol)
    np.testing.assert_array_equal(read_tensors(path)["a"], NUMBERS.numpy())


@pytest.mark.parametrize(
    "between",
    [{}, {"optimizer_state": b"N"}, {"optimizer_state": b"}", "grad_scaler_state": b"N"}, {"optimizer_state": b"]"}],
    ids=["nothing", "no optimizer", "an empty optimizer", "an empty list"],
)
def test_logs_behind_the_weights_may_be_of_any_length(tmp_path: Path, between: dict[str, bytes]) -> None:
    long_logs = checkpoints.PROTO + checkpoints.dictionary(
        {
            "network_weights": checkpoints.dictionary({"a": checkpoints.tensor(checkpoints.storage(), (2,))}),
            **between,
            "logs": checkpoints.dictionary({"a": b"]" + b"(" + b"N" * MOST_STEPS + b"e"}),
        }
    )
    path = tmp_path / "checkpoint_final.pth"
    path.write_bytes(checkpoints.zipped(long_logs + checkpoints.STOP, {"0": bytes(8)}))
    assert list(read_tensors(path)) == ["a"]


@pytest.mark.parametrize("optimizer", [None, {}], ids=["none", "empty"])
def test_a_checkpoint_of_four_thousand_epochs_without_its_optimizer_is_read(tmp_path: Path, optimizer: object) -> None:
    scores = [[np.float32(0.5)] * 26 for _ in range(4000)]
    logging = {"mean_fg_dice": [0.5] * 4000, "dice_per_class_or_region": scores}
    beside = {"optimizer_state": optimizer, "grad_scaler_state": None, "logging": logging, "current_epoch": 4000}
    weights = OrderedDict({f"t{number}": NUMBERS[:1] + number for number in range(130)})
    assert list(read_tensors(saved(tmp_path, weights, **beside))) == list(weights)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrapping_modules_are_taken_off(tmp_path: Path, prefix: str) -> None:
    tensors = read_tensors(saved(tmp_path, {f"{prefix}encoder.weight": NUMBERS, f"{prefix}decoder.encoder.x": NUMBERS}))
    assert list(tensors) == ["encoder.weight"]


class Calls:
    """Is pickled as a call of ``function`` with ``arguments``."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class MarksWhenMade:
    def __new__(cls, marker: str) -> "MarksWhenMade":
        Path(marker).touch()
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[str]:
        return (self.marker,)

    marker: str


class MarksWhenFilled:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state: Mapping[str, str]) -> None:
        Path(state["marker"]).touch()


def made(marker: str) -> MarksWhenMade:
    thing = MarksWhenMade(marker)
    thing.marker = marker
    Path(marker).unlink()
    return thing


ATTACKS: Mapping[str, Callable[[str], object]] = {
    "a shell": lambda marker: Calls(os.system, f"touch '{marker}'"),
    "eval": lambda marker: Calls(builtins.eval, f"open({marker!r}, 'w')"),
    "open": lambda marker: Calls(builtins.open, marker, "w"),
    "torch.save": lambda marker: Calls(torch.save, 0, marker),
    "a mapped file": lambda marker: Calls(torch.UntypedStorage.from_file, marker, True, 8),
    "a nested call": lambda marker: Calls(getattr(builtins, "exec"), Calls(str, f"open({marker!r}, 'w')")),  # noqa: B009
    "NEWOBJ": made,
    "BUILD": MarksWhenFilled,
}
"""Each touches the file it is given as soon as a pickle of it is loaded in the usual way."""


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "marker"
    path = saved(tmp_path, {"a": NUMBERS}, beside=ATTACKS[attack](str(marker)))
    np.testing.assert_array_equal(read_tensors(path)["a"], NUMBERS.numpy())
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the attack is none; the test proves nothing"


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_the_place_of_a_tensor_is_not_run(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "marker"
    path = saved(tmp_path, {"a": NUMBERS, "b": ATTACKS[attack](str(marker))})
    assert list(read_tensors(path)) == ["a"]
    assert not marker.exists()


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_in_the_place_of_the_weights_is_refused_and_not_run(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "marker"
    with pytest.raises(DamagedWeights):
        read_tensors(saved(tmp_path, ATTACKS[attack](str(marker))))
    assert not marker.exists()


def described(*, offset: object = 0, shape: object = (8,), strides: object = (1,)) -> Calls:
    """A tensor that claims to lie so in a storage of 8 numbers."""
    storage = torch.arange(8.0)._typed_storage()
    return Calls(torch._utils._rebuild_tensor_v2, storage, offset, shape, strides, False, OrderedDict())


def test_a_tensor_described_by_hand_is_read(tmp_path: Path) -> None:
    tensors = read_tensors(saved(tmp_path, {"a": described(offset=1, shape=(3, 2), strides=(1, 4))}))
    np.testing.assert_array_equal(tensors["a"], [[1, 5], [2, 6], [3, 7]])


@pytest.mark.parametrize(
    "tensor",
    [
        described(offset=1),
        described(offset=-1, shape=(2,)),
        described(offset=7, shape=(2,), strides=(-1,)),
        described(shape=(3, 3), strides=(3, 1)),
        described(shape=(-2,)),
        described(shape=(0,)),
        described(shape=(2, 2)),
        described(shape=(10**6, 10**6, 10**6), strides=(0, 0, 0)),
        described(offset="first"),
        described(shape=("a",)),
        described(shape=8),
    ],
)
def test_a_tensor_that_does_not_lie_in_its_storage_is_refused(tmp_path: Path, tensor: Calls) -> None:
    with pytest.raises(DamagedWeights):
        read_tensors(saved(tmp_path, {"a": tensor}))


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    path = saved(tmp_path, {"a": NUMBERS})
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(DamagedWeights, match="no complete PyTorch file"):
        read_tensors(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedWeights):
        read_tensors(tmp_path / "checkpoint_final.pth")


def test_a_tensor_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": NUMBERS})
    content = path.read_bytes()
    place = content.index(NUMBERS.numpy().tobytes())
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with pytest.raises(DamagedWeights):
        read_tensors(path)


@pytest.mark.parametrize(
    ("entry", "change"),
    [
        ("data/0", lambda _content: None),
        ("data/0", lambda content: content[:-4]),
        ("data/0", lambda content: content[:-3]),
        ("data.pkl", lambda _content: None),
        ("data.pkl", lambda content: content[:-20]),
        ("data.pkl", lambda content: b"\x80\x02" + content[2:].replace(b"FloatStorage", b"FloatSorcery")),
        ("data.pkl", lambda _content: b"\x80\x02]."),
        ("data.pkl", lambda _content: b"c\xff\n\n."),
        ("byteorder", lambda _content: b"big"),
    ],
)
def test_a_checkpoint_whose_parts_do_not_fit_is_refused(
    tmp_path: Path, entry: str, change: Callable[[bytes], bytes | None]
) -> None:
    with pytest.raises(DamagedWeights):
        read_tensors(rewritten(saved(tmp_path, {"a": NUMBERS}), entry, change))


def test_no_change_of_one_byte_of_the_pickle_leads_to_another_error(tmp_path: Path) -> None:
    original = saved(tmp_path, {"a": NUMBERS}, logs=[np.float64(0.5)]).read_bytes()
    path = tmp_path / "changed.pth"
    random = np.random.default_rng(0)
    outcomes = []
    for place in range(200):
        path.write_bytes(original)
        rewritten(path, "data.pkl", _with_another_byte(place, int(random.integers(256))))
        outcomes.append(_outcome(path))
    assert outcomes.count("refused") > len(outcomes) / 2


def _outcome(path: Path) -> str:
    """Any other error than DamagedWeights escapes."""
    try:
        read_tensors(path)
    except DamagedWeights:
        return "refused"
    return "read"


def _with_another_byte(place: int, value: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        at = place % len(content)
        return content[:at] + bytes([value]) + content[at + 1 :]

    return change


def test_the_format_of_torch_before_1_6_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {"a": NUMBERS}}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(DamagedWeights):
        read_tensors(path)


@pytest.mark.parametrize("content", [{"state_dict": {"a": NUMBERS}}, [NUMBERS], {"network_weights": {}}])
def test_a_checkpoint_without_network_weights_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "checkpoint_final.pth"
    torch.save(content, path)
    with pytest.raises(DamagedWeights, match=r"no network weights|no tensors"):
        read_tensors(path)
