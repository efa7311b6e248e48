"""Runs a network on the CPU with OpenVINO, without PyTorch: compiled once, and kept on disk from then on."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.networks import compiled_cache, pace
from openscans.networks.checkpoint import CHECKPOINT, read_tensors
from openscans.networks.network import Network
from openscans.networks.openvino_formulations import Formulation, Planes, Volumes
from openscans.networks.openvino_graph import GRAPH_VERSION, build_graph, build_small_graph
from openscans.networks.openvino_runtime import (
    abilities_of,
    convolution_kernels,
    machine_facts,
    open_abilities,
    openvino,
    reference_count,
)
from openscans.networks.plans import Plan
from openscans.system import parallel
from openscans.system.disk_cache import let_go
from openscans.types import InferenceOptions, Precision, RunningNetwork, TrainedModel

log = logging.getLogger("openscans.networks")

PRECISIONS: dict[Precision, openvino.Type] = {"bfloat16": openvino.Type.bf16, "float32": openvino.Type.f32}
"""The fastest first."""


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
        self._formulation = way.formulation
        self._compiled, self._kept = _compile(core, model, plan, way, options)
        self.runs = _tell(self._compiled, plan, device, way)
        self._request = self._compiled.create_infer_request()
        self.patch_s = plan.patch_multiply_adds * _multiply_add_s(core, way, options)

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x); overwritten by the next call."""
        began_s = time.perf_counter()
        # What `infer` returns is a copy of all logits, unless it is told to share them.
        self._request.infer({0: np.ascontiguousarray(patch[None, None])}, share_inputs=True, share_outputs=True)
        self.patch_s = time.perf_counter() - began_s
        return self._formulation.leave(self._request.get_output_tensor().data)

    def release(self) -> None:
        # The last logits go with the request that computed them.
        self._request = self._compiled.create_infer_request()
        self._compiled.release_memory()


@dataclass(frozen=True)
class Way:
    """How networks are run on this machine."""

    precision: Precision
    formulation: Formulation


def choose_way(core: openvino.Core, options: InferenceOptions) -> Way:
    """The fastest precision that is wished for and that the runtime can do, and the formulation it has kernels for."""
    cache = open_abilities(options.cache_folder)
    for precision in _wished(core, options.precision):
        if abilities_of(core, PRECISIONS[precision], cache).convolves_volumes:
            return Way(precision, Volumes())
    # In float32 only: of sums over planes in float16 a twentieth of the labels came out wrong.
    return Way("float32", Planes())


def _wished(core: openvino.Core, wish: str) -> Iterator[Precision]:
    if wish == "auto" and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        yield "bfloat16"
    yield "float32"


def _compile(
    core: openvino.Core, model: TrainedModel, plan: Plan, way: Way, options: InferenceOptions
) -> tuple[openvino.CompiledModel, openvino.Tensor | None]:
    """The network of ``model``, as it was compiled before where that was kept, else compiled, and kept.

    With what it was imported from, which must live as long. OpenVINO packs weights for its kernels and holds on to what
    it was given: of an imported network that is a part of the file, which takes no memory once it is let go.

    OpenVINO's own cache is keyed by node names too, which count on through the process: it finds a network only where
    as many were built before it as last time, and only after the checkpoint was read and the graph was built.
    """
    settings = _settings(way, options)
    key = _key(core, model, way)
    cache = compiled_cache.open_cache(options.cache_folder)
    known = _import(core, cache.map(key), settings)
    if known is not None:
        return known
    graph = build_graph(plan, read_tensors(model.folder / CHECKPOINT), PRECISIONS[way.precision], way.formulation)
    compiled = core.compile_model(graph, "CPU", settings)
    cache.put(key, compiled.export_model().getbuffer())
    return _import(core, cache.map(key), settings) or (compiled, None)


def _import(
    core: openvino.Core, kept: memoryview | None, settings: dict[str, object]
) -> tuple[openvino.CompiledModel, openvino.Tensor] | None:
    """The compiled network that was ``kept``, and what it refers to; None where OpenVINO refuses it."""
    if kept is None:
        return None
    content = openvino.Tensor(np.frombuffer(kept, np.uint8), shared_memory=True)
    try:
        compiled = core.import_model(content, "CPU", settings)
    except RuntimeError:
        log.warning("A compiled network was kept, but OpenVINO refuses it; it is compiled again.")
        return None
    let_go(kept)
    return compiled, content


def _key(core: openvino.Core, model: TrainedModel, way: Way) -> str:
    """Changes with the weights, and with all that a compiled network depends on beside them.

    The weights' digest is the one that was made when they were installed: another look at hundreds of megabytes would
    take longer than all the rest of loading what was kept.
    """
    return compiled_cache.key_of(model.sha256, *_facts(core, way))


def _facts(core: openvino.Core, way: Way) -> tuple[str, ...]:
    """All that decides, beside the weights, what is compiled and what computes it."""
    return GRAPH_VERSION, openvino.get_version(), *machine_facts(core), way.precision, way.formulation.name


def _multiply_add_s(core: openvino.Core, way: Way, options: InferenceOptions) -> float:
    """`pace.time_multiply_add`, timed once for a machine and a version, and kept."""
    book = pace.PaceBook(options.cache_folder)
    facts = "small run", *_facts(core, way), str(options.threads or parallel.thread_count())
    kept_s = book.get(*facts)
    if kept_s is not None:
        return kept_s
    found_s = pace.time_multiply_add(small_runs(core, way, options))
    book.put(found_s, *facts)
    return found_s


def small_runs(core: openvino.Core, way: Way, options: InferenceOptions) -> Callable[[int], Callable[[], object]]:
    """See `pace.time_multiply_add`."""

    def make_run(edge: int) -> Callable[[], object]:
        graph = build_small_graph(edge, pace.SMALL_WEIGHTS, way.formulation)
        request = core.compile_model(graph, "CPU", _settings(way, options)).create_infer_request()
        values = np.ones((1, 1, edge, edge, edge), np.float32)
        return lambda: request.infer({0: values}, share_inputs=True)

    return make_run


def _settings(way: Way, options: InferenceOptions) -> dict[str, object]:
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[way.precision],
    }
    threads = parallel.thread_limit() if options.threads is None else options.threads
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings


def _tell(compiled: openvino.CompiledModel, plan: Plan, device: str, way: Way) -> RunningNetwork:
    """How it runs. A convolution that got a reference loop is said in the log, too."""
    kernels = convolution_kernels(compiled)
    slow = reference_count(kernels)
    if slow:
        log.warning(
            "%d of %d convolutions of %s run on reference loops, a hundred times slower than OpenVINO's own kernels",
            slow,
            sum(kernels.values()),
            plan.dataset_name,
        )
    library = f"OpenVINO {openvino.get_version().partition('-')[0]}"
    return RunningNetwork(
        plan.dataset_name, library, device, way.precision, way.formulation.name, kernels, slow=slow > 0
    )
