"""What this machine can do at most, and what a network gets of it: GFLOP/s through the same runtime.

python -m benchmarks.machine --network TRAINING_FOLDER [--precision float32]
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.detect import PRECISIONS
from openscans import networks
from openscans.networks.plans import Plan
from openscans.types import InferenceOptions

MATRIX = 4096
"""Rows and columns: 137 GFLOP, beside which moving 64 MB in and out is nothing."""

REPEATS = 5


def peak_gflops(precision: str) -> float:
    """The fastest of some plain matrix products; ``precision`` as in `InferenceOptions`, int8 beside float32."""
    import openvino
    from openvino import opset13 as ops

    core = openvino.Core()
    narrow = precision == "auto" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    values = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), np.float32)
    left = ops.parameter([MATRIX, MATRIX], np.float32)
    model = openvino.Model([ops.matmul(left, ops.constant(values), False, False)], [left], "product")
    hint = openvino.Type.bf16 if narrow else openvino.Type.f32
    request = core.compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    ).create_infer_request()
    return 2 * MATRIX**3 / fastest_s(lambda: request.infer({0: values}, share_inputs=True)) / 1e9


def network_s(folder: Path, precision: str) -> float:
    """Seconds that the network of a training ``folder`` takes for one patch: the fastest of some."""
    with tempfile.TemporaryDirectory() as cache:
        options = InferenceOptions(threads=None, precision=precision, cache_folder=Path(cache))
        network = networks.load_folder(folder, device="cpu", options=options)
    patch = np.random.default_rng(0).standard_normal(network.plan.patch_zyx, np.float32)
    return fastest_s(lambda: network.logits(patch))


def fastest_s(work: Callable[[], object]) -> float:
    found = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        work()
        found.append(time.perf_counter() - began_s)
    return min(found)


def patch_gflop(plan: Plan) -> float:
    """Multiplications and additions of all convolutions over one patch."""
    return 2 * plan.patch_multiply_adds / 1e9


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    arguments = parser.parse_args()
    logging.getLogger(__name__).info(efficiency(arguments.network, arguments.precision))


def efficiency(folder: Path, precision: str) -> str:
    """A sentence: the network's GFLOP/s beside the machine's."""
    gflop, seconds, peak = patch_gflop(networks.read_plan(folder)), network_s(folder, precision), peak_gflops(precision)
    share = gflop / seconds / peak
    return (
        f"Network: {gflop:.0f} GFLOP and {seconds:.2f} s a patch, {gflop / seconds:.0f} GFLOP/s; "
        f"a matrix product in the same precision: {peak:.0f} GFLOP/s; share {share:.0%}."
    )


if __name__ == "__main__":
    main()
