"""One number of threads reaches all that computes: the setting, or else the cores that the process may use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from phantom.files import write_dicom_series
from tests import bad_files, small_networks

ROOT = Path(__file__).resolve().parents[1]

ON_ONE_CORE = """
import json, os, sys, time
from pathlib import Path

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import torch

from inference import Pipeline
from openscans import networks, volumes
from openscans.system import parallel
from openscans.types import InferenceOptions

series, weights, cache = map(Path, sys.argv[1:4])
options = InferenceOptions(int(sys.argv[4]) or None, "float32", cache)
begun = []
sys.addaudithook(lambda event, _: begun.append(event) if event.startswith("_thread.start") else None)

def threads_of(work):
    begun.clear()
    work()
    return len(begun) or 1

Pipeline(options)
networks.load_folder(weights, device="cpu:torch", options=options)
openvino = networks.load_folder(weights, device="cpu", options=options)._compiled.compiled
print(json.dumps({
    "count": parallel.thread_count(),
    "torch": torch.get_num_threads(),
    "openvino": openvino.get_property("INFERENCE_NUM_THREADS"),
    "decoding": threads_of(lambda: volumes.open(series).read()),
    "arrays": threads_of(lambda: parallel.parallel_for(lambda _: time.sleep(0.05), 100)),
}))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize(("setting", "threads"), [(0, 1), (3, 3)], ids=["unset", "three"])
def test_a_process_that_may_use_one_core_computes_on_one_thread_unless_it_is_told_otherwise(
    tmp_path: Path, setting: int, threads: int
) -> None:
    weights = small_networks.write(tmp_path / "weights", small_networks.CT)
    write_dicom_series(tmp_path / "series", bad_files.some_voxels(slices=20), bad_files.AFFINE)
    folders = [str(folder) for folder in (tmp_path / "series", weights, tmp_path / "compiled")]
    command = [sys.executable, "-c", ON_ONE_CORE, *folders, str(setting)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(said.stdout)
    # OpenVINO itself takes no more than the one core, whatever it is told.
    assert found.pop("openvino") == 1
    assert found == dict.fromkeys(("count", "torch", "decoding", "arrays"), threads)
