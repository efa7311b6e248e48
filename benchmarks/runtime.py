"""What the runtime's settings make of a patch's time: threads, streams, patches at once, pinning; in turn.

    python -m benchmarks.runtime --network TRAINING_FOLDER [--precision float32] [--rounds 10]

Seconds are those of one patch, also where several are computed at once.
"""

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openscans.networks.checkpoint import read_tensors
from openscans.networks.openvino_graph import build_graph
from openscans.networks.openvino_runtime import openvino
from openscans.networks.plans import Plan, read_plan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """``at_once``: patches that are handed over together, each as a request of its own or, ``batched``, as one."""

    name: str
    properties: dict[str, Any] = field(default_factory=dict)
    at_once: int = 1
    batched: bool = False


SETTINGS = (
    Setting("latency (as the service runs)"),
    Setting("one thread", {"INFERENCE_NUM_THREADS": 1}),
    Setting("threads pinned to cores", {"ENABLE_CPU_PINNING": True}),
    Setting("threads not pinned", {"ENABLE_CPU_PINNING": False}),
    Setting("two streams, a patch each", {"NUM_STREAMS": 2, "PERFORMANCE_HINT": "THROUGHPUT"}, at_once=2),
    Setting("two patches as one batch", at_once=2, batched=True),
)


def ready(setting: Setting, folder: Path, plan: Plan, precision: openvino.Type) -> Callable[[], None]:
    """What computes ``setting.at_once`` patches when it is called."""
    model = build_graph(plan, read_tensors(folder / "fold_0" / "checkpoint_final.pth"), precision)
    batch = setting.at_once if setting.batched else 1
    model.reshape([batch, 1, *plan.patch_zyx])
    properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision} | setting.properties
    compiled = openvino.Core().compile_model(model, "CPU", properties)
    requests = [compiled.create_infer_request() for _ in range(setting.at_once // batch)]
    patch: NDArray[np.float32] = np.random.default_rng(0).standard_normal((batch, 1, *plan.patch_zyx), np.float32)

    def compute() -> None:
        for request in requests:
            request.start_async({0: patch}, share_inputs=True)
        for request in requests:
            request.wait()

    return compute


def measure(folder: Path, precision: openvino.Type, rounds: int) -> dict[str, list[float]]:
    """Seconds a patch, by setting; the settings take turns, so that a slower machine is slower for all."""
    plan = read_plan(folder)
    computing = {setting.name: ready(setting, folder, plan, precision) for setting in SETTINGS}
    for compute in computing.values():
        compute()
    found: dict[str, list[float]] = {setting.name: [] for setting in SETTINGS}
    for _ in range(rounds):
        for setting in SETTINGS:
            began_s = time.perf_counter()
            computing[setting.name]()
            found[setting.name].append((time.perf_counter() - began_s) / setting.at_once)
    return found


def main(given: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--precision", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args(given)
    precision = openvino.Type.bf16 if arguments.precision == "bfloat16" else openvino.Type.f32
    found = measure(arguments.network, precision, arguments.rounds)
    first = median(found[SETTINGS[0].name])
    log.info("| setting | seconds a patch, median | fastest | beside the first |")
    log.info("|---|---|---|---|")
    for name, seconds in found.items():
        log.info(f"| {name} | {median(seconds):.2f} | {min(seconds):.2f} | {median(seconds) / first:.2f} |")


if __name__ == "__main__":
    main()
