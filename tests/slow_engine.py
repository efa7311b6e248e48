"""An engine whose patches take as long as a test says, under the real pipeline: a computer a hundred times too slow.

Its module is imported by the worker process, so that a test only names what it wants.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference import Pipeline
from openscans import networks
from openscans.networks import Plan
from openscans.types import InferenceOptions, RunningNetwork, TrainedModel

RUNS = RunningNetwork("none", "a test engine", "cpu", "float32", formulation="volumes", kernels={}, slow=False)


@dataclass
class SlowNetwork(networks.Network):
    """Finds nothing, and takes ``sleep_s`` for that, where ``patch_s`` was reckoned."""

    plan: Plan
    patch_s: float
    sleep_s: float
    device: str = "cpu"
    runs: RunningNetwork = RUNS

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        time.sleep(self.sleep_s)
        self.patch_s = self.sleep_s
        return np.zeros((self.plan.architecture.heads, *patch.shape), np.float32)


def make_pipeline(cache_folder: Path, patch_s: float, sleep_s: float) -> Pipeline:
    """A `Pipeline` over networks whose patches take ``sleep_s``, of which ``patch_s`` was reckoned beforehand."""

    def load(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> SlowNetwork:
        return SlowNetwork(plan, patch_s, sleep_s)

    return Pipeline(InferenceOptions(1, "float32", cache_folder), load)
