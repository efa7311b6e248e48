"""The real server on a machine whose CPU poses as the GPU of a Mac, one that leaves out a plane of every patch.

Run as a program by `tests.live_server`; takes the same flags and environment as main.py. What a request names no device
for goes to that GPU.
"""

import multiprocessing
import os
import sys
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

import main
from config import Settings
from inference import Pipeline
from openscans import networks
from openscans.networks import TORCH_ON_CPU, Network, Plan
from openscans.system.listeners import bind_sockets
from openscans.types import InferenceOptions, TrainedModel

POSING = TORCH_ON_CPU
"""The device that is taken for a Mac's."""


class LastPlaneLacks(Network):
    """A network on a device that computes all but the last plane."""

    def __init__(self, network: Network) -> None:
        self.plan, self.device, self.runs = network.plan, network.device, network.runs
        self.patch_s, self._network = network.patch_s, network

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        found = self._network.logits(patch)
        found[..., -1] = 0
        return found


def load_unchecked(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    """As PyTorch would for a Mac: wrong on its GPU, right on its CPU."""
    network = networks.load(model, plan, device=POSING, options=options)
    return LastPlaneLacks(network) if device == "mps" else network


def load(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    """As `networks.load`, but `POSING` is checked as a Mac's GPU is."""
    if device != POSING:
        return networks.load(model, plan, device=device, options=options)
    from openscans.networks.metal_network import load_checked

    return load_checked(model, plan, device="mps", options=options, load=load_unchecked)


def make_pipeline(options: InferenceOptions) -> Pipeline:
    return Pipeline(options, load)


def run() -> int:
    settings = Settings.from_env({**os.environ, **main.parse_flags(sys.argv[1:])})
    main.make_pipeline = make_pipeline
    return main.run(replace(settings, device=POSING), bind_sockets(settings.host, settings.port))


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(run())
