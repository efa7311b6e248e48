"""Graphs compiled by OpenVINO in the way that suits this machine, and kept on disk from then on."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openscans.networks import compiled_cache
from openscans.networks.checkpoint import CHECKPOINT, read_tensors
from openscans.networks.openvino_formulations import Formulation, Planes, Volumes
from openscans.networks.openvino_graph import GRAPH_VERSION, build_graph
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

PRECISIONS: dict[Precision, openvino.Type] = {
    "bfloat16": openvino.Type.bf16,
    "float32": openvino.Type.f32,
    # Of what is not convolved in 8-bit integers.
    "int8": openvino.Type.f32,
}
"""In what the runtime is asked to compute."""

log = logging.getLogger("openscans.networks")


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


class CompiledNetwork:
    """A compiled graph that is run; the last of its results are logits. One thread at a time."""

    def __init__(self, compiled: openvino.CompiledModel, way: Way, kept: openvino.Tensor | None = None) -> None:
        """``kept`` is what ``compiled`` was imported from, and must live as long.

        OpenVINO packs weights for its kernels and holds on to what it was given: of an imported network that is a part
        of the file, which takes no memory once it is let go.
        """
        self.compiled = compiled
        self._way = way
        self._kept = kept
        self._request = compiled.create_infer_request()

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x); overwritten by the next call."""
        # What `infer` returns is a copy of all results, unless it is told to share them.
        self._request.infer({0: np.ascontiguousarray(patch[None, None])}, share_inputs=True, share_outputs=True)
        return self._way.formulation.leave(self._request.get_tensor(self._request.model_outputs[-1]).data)

    def result(self, index: int) -> NDArray[np.float32]:
        """A copy of what the last call of `logits` gave before them."""
        values: NDArray[np.float32] = self._request.get_output_tensor(index).data.copy()
        return values

    def release(self) -> None:
        """Let go of the memory that computing took, the results' too; weights stay."""
        # The last results go with the request that computed them.
        self._request = self.compiled.create_infer_request()
        self.compiled.release_memory()

    def tell(self, plan: Plan, device: str) -> RunningNetwork:
        """How it runs. A convolution that got a reference loop is said in the log, too."""
        kernels = convolution_kernels(self.compiled)
        slow = reference_count(kernels)
        if slow:
            log.warning(
                "%d of %d convolutions of %s run on reference loops, a hundred times slower than others",
                slow,
                sum(kernels.values()),
                plan.dataset_name,
            )
        library = f"OpenVINO {openvino.get_version().partition('-')[0]}"
        precision, formulation = self._way.precision, self._way.formulation.name
        return RunningNetwork(plan.dataset_name, library, device, precision, formulation, kernels, slow=slow > 0)


def compile_network(
    core: openvino.Core, model: TrainedModel, plan: Plan, way: Way, options: InferenceOptions
) -> CompiledNetwork:
    """The network of ``model``: as it was compiled before where that was kept, else compiled, and kept."""

    def build() -> openvino.Model:
        return build_graph(plan, read_tensors(model.folder / CHECKPOINT), PRECISIONS[way.precision], way.formulation)

    return compile_once(core, build, key_of(core, model, way), way, options)


def compile_once(
    core: openvino.Core, build: Callable[[], openvino.Model], key: str, way: Way, options: InferenceOptions
) -> CompiledNetwork:
    """What was kept under ``key``; else what ``build`` gives, compiled, and kept.

    OpenVINO's own cache is keyed by node names too, which count on through the process: it finds a network only where
    as many were built before it as last time, and only after the checkpoint was read and the graph was built.
    """
    settings = settings_of(way, options)
    known = import_kept(core, key, way, options)
    if known is not None:
        return known
    compiled = core.compile_model(build(), "CPU", settings)
    return keep(core, compiled, key, way, options)


def keep(
    core: openvino.Core, compiled: openvino.CompiledModel, key: str, way: Way, options: InferenceOptions
) -> CompiledNetwork:
    """Keep what was ``compiled`` under ``key``; the same, imported, so that it takes less memory, where that can be."""
    compiled_cache.open_cache(options.cache_folder).put(key, compiled.export_model().getbuffer())
    return import_kept(core, key, way, options) or CompiledNetwork(compiled, way)


def import_kept(core: openvino.Core, key: str, way: Way, options: InferenceOptions) -> CompiledNetwork | None:
    """What was kept under ``key``; None where there is nothing, or OpenVINO refuses it."""
    kept = compiled_cache.open_cache(options.cache_folder).map(key)
    if kept is None:
        return None
    content = openvino.Tensor(np.frombuffer(kept, np.uint8), shared_memory=True)
    try:
        compiled = core.import_model(content, "CPU", settings_of(way, options))
    except RuntimeError:
        log.warning("A compiled network was kept, but OpenVINO refuses it; it is compiled again.")
        return None
    let_go(kept)
    return CompiledNetwork(compiled, way, content)


def key_of(core: openvino.Core, model: TrainedModel, way: Way, *further: str) -> str:
    """Changes with the weights, and with all that a compiled network depends on beside them; ``further`` is that too.

    The weights' digest is the one that was made when they were installed: another look at hundreds of megabytes would
    take longer than all the rest of loading what was kept.
    """
    return compiled_cache.key_of(model.sha256, *facts_of(core, way), *further)


def facts_of(core: openvino.Core, way: Way) -> tuple[str, ...]:
    """All that decides, beside the weights, what is compiled and what computes it."""
    return GRAPH_VERSION, openvino.get_version(), *machine_facts(core), way.precision, way.formulation.name


def settings_of(way: Way, options: InferenceOptions) -> dict[str, object]:
    """The runtime's own settings."""
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": PRECISIONS[way.precision],
    }
    threads = parallel.thread_limit() if options.threads is None else options.threads
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    return settings
