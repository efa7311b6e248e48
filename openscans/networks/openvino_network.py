"""Runs a network on the CPU with OpenVINO, without PyTorch, and knows how long a patch takes."""

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from openscans.networks import pace
from openscans.networks.network import Network
from openscans.networks.openvino_compilation import Way, choose_way, compile_network, facts_of, settings_of
from openscans.networks.openvino_graph import build_small_graph
from openscans.networks.openvino_runtime import openvino
from openscans.networks.plans import Plan
from openscans.system import parallel
from openscans.types import InferenceOptions, TrainedModel


class OpenVinoNetwork(Network):
    """A compiled network; see `network.Network`."""

    def __init__(
        self,
        model: TrainedModel,
        plan: Plan,
        *,
        device: str,
        options: InferenceOptions,
        core: openvino.Core | None = None,
    ) -> None:
        """``core`` None: OpenVINO as it is."""
        self.plan = plan
        self.device = device
        core = core or openvino.Core()
        way = choose_way(core, options)
        self._compiled = compile_network(core, model, plan, way, options)
        self.runs = self._compiled.tell(plan, device)
        self._pace = reckon_pace(core, plan, way, options)
        self.patch_s = self._pace.patch_s

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x); overwritten by the next call."""
        began_s = time.perf_counter()
        found = self._compiled.logits(patch)
        self.patch_s = time.perf_counter() - began_s
        self._pace.correct(self.patch_s)
        return found

    def release(self) -> None:
        self._compiled.release()


def reckon_pace(core: openvino.Core, plan: Plan, way: Way, options: InferenceOptions) -> pace.PatchPace:
    """What a patch of ``plan`` should take, by a small run: timed once for a machine and a version."""
    facts = "small run", *facts_of(core, way), str(options.threads or parallel.thread_count())
    book = pace.PaceBook(options.cache_folder)
    return pace.reckon(book, facts, plan.patch_multiply_adds, small_runs(core, way, options))


def small_runs(core: openvino.Core, way: Way, options: InferenceOptions) -> Callable[[int], Callable[[], object]]:
    """See `pace.time_multiply_add`."""

    def make_run(edge: int) -> Callable[[], object]:
        graph = build_small_graph(edge, pace.SMALL_WEIGHTS, way.formulation)
        request = core.compile_model(graph, "CPU", settings_of(way, options)).create_infer_request()
        values = np.ones((1, 1, edge, edge, edge), np.float32)
        return lambda: request.infer({0: values}, share_inputs=True)

    return make_run
