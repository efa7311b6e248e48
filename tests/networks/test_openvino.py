"""OpenVINO: a compiled network is kept and used again, and only for its own weights; nobody is told of anything."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openscans import networks
from openscans.networks import compiled_cache
from openscans.networks.openvino_runtime import openvino
from openscans.types import InferenceOptions
from tests import small_networks

ROOT = Path(__file__).resolve().parents[2]
SPEC = small_networks.CT
NAMES = 0.01
"""By how much the sizes of a network that is compiled twice may differ: names in it count on through the process."""

PATCH = np.random.default_rng(0).standard_normal(SPEC.patch_zyx, np.float32)


@pytest.fixture
def options(tmp_path: Path) -> InferenceOptions:
    return InferenceOptions(threads=1, precision="float32", cache_folder=tmp_path / "compiled")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return small_networks.write(tmp_path / "results", SPEC)


def logits(folder: Path, options: InferenceOptions) -> NDArray[np.float32]:
    return networks.load_folder(folder, device="cpu", options=options).logits(PATCH).copy()


def kept(options: InferenceOptions) -> list[Path]:
    return sorted(options.cache_folder.glob("*.blob"), key=lambda path: path.stat().st_mtime_ns)


def test_a_second_start_takes_the_network_that_was_kept(
    tmp_path: Path, folder: Path, options: InferenceOptions
) -> None:
    logits(folder, options)
    (own,) = kept(options)
    elsewhere = replace(options, cache_folder=tmp_path / "elsewhere")
    expected = logits(small_networks.write(tmp_path / "others", SPEC, seed=1), elsewhere)
    kept(elsewhere)[0].replace(own)
    # Another network lies where this one's was kept: its logits tell that what was kept is what runs.
    np.testing.assert_array_equal(logits(folder, options), expected)


def test_a_second_start_compiles_nothing_anew(folder: Path, options: InferenceOptions) -> None:
    first = logits(folder, options)
    (own,) = kept(options)
    written = own.stat().st_ino
    np.testing.assert_array_equal(logits(folder, options), first)
    assert [path.stat().st_ino for path in kept(options)] == [written]


def test_a_kept_network_that_was_cut_short_is_compiled_again(folder: Path, options: InferenceOptions) -> None:
    first = logits(folder, options)
    (own,) = kept(options)
    size_bytes = own.stat().st_size
    os.truncate(own, size_bytes // 2)
    np.testing.assert_array_equal(logits(folder, options), first)
    assert own.stat().st_size == pytest.approx(size_bytes, rel=NAMES)


def test_a_kept_network_that_openvino_refuses_is_compiled_again(folder: Path, options: InferenceOptions) -> None:
    first = logits(folder, options)
    (own,) = kept(options)
    size_bytes = own.stat().st_size
    compiled_cache.open_cache(options.cache_folder).put(own.stem, b"of another version")
    np.testing.assert_array_equal(logits(folder, options), first)
    assert own.stat().st_size == pytest.approx(size_bytes, rel=NAMES)


def test_a_network_runs_where_none_can_be_kept(tmp_path: Path, folder: Path, options: InferenceOptions) -> None:
    (tmp_path / "file").touch()
    locked = replace(options, cache_folder=tmp_path / "file" / "compiled")
    np.testing.assert_array_equal(logits(folder, locked), logits(folder, options))


def test_changed_plans_do_not_use_the_network_kept_before(folder: Path, options: InferenceOptions) -> None:
    logits(folder, options)
    plans = folder / "plans.json"
    plans.write_text(plans.read_text() + "\n")
    logits(folder, options)
    assert len(kept(options)) == 2


def test_a_network_computes_the_same_after_it_has_let_go_of_its_memory(folder: Path, options: InferenceOptions) -> None:
    network = networks.load_folder(folder, device="cpu", options=options)
    first = network.logits(PATCH).copy()
    network.release()
    np.testing.assert_array_equal(network.logits(PATCH), first)


def test_a_network_computes_on_when_what_was_kept_of_it_is_given_up(folder: Path, options: InferenceOptions) -> None:
    expected = logits(folder, options)
    network = networks.load_folder(folder, device="cpu", options=options)
    (own,) = kept(options)
    own.unlink()
    np.testing.assert_array_equal(network.logits(PATCH), expected)


@pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"), reason="no bfloat16 here"
)
def test_each_precision_keeps_its_own(folder: Path, options: InferenceOptions) -> None:
    exact = logits(folder, options)
    assert (logits(folder, replace(options, precision="auto")) != exact).any()
    assert len(kept(options)) == 2
    np.testing.assert_array_equal(logits(folder, options), exact)


WATCHED = """
import sys
sys.addaudithook(lambda event, _: print(event) if event.startswith(("socket.", "subprocess.", "os.fork")) else None)
import openscans.networks.openvino_network
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry.")))
"""


def test_importing_openvino_tells_nobody(tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", WATCHED], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []
