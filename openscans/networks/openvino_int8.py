"""Networks of OpenVINO's: one in int8 where it labels as float32 does, which the first image decides; else float32.

The first patches run in float32 and tell the ranges of every channel. The first of them in which enough is named is
labelled in int8 too. Where the labels agree, int8 is what runs from the next patch on; else float32 stays, and says so.
Either is kept for the weights, so that no later process tries it again. One thread at a time runs a network.
"""

import logging
import time

import numpy as np
from numpy.typing import NDArray

from openscans.networks import int8_trials
from openscans.networks.checkpoint import CHECKPOINT, Tensors, read_tensors
from openscans.networks.equalisation import equalise, passages
from openscans.networks.int8_trials import ChannelRange, Int8Trial, Ranges, TrialCache, agreement_of
from openscans.networks.network import Network
from openscans.networks.openvino_compilation import (
    CompiledNetwork,
    Way,
    choose_way,
    compile_network,
    compile_once,
    keep,
    key_of,
    settings_of,
)
from openscans.networks.openvino_formulations import Planes, Volumes
from openscans.networks.openvino_graph import build_graph
from openscans.networks.openvino_network import OpenVinoNetwork, reckon_pace
from openscans.networks.openvino_quantisation import quantise, tell_ranges
from openscans.networks.openvino_runtime import convolution_kernels, int8_count, openvino
from openscans.networks.plans import Plan
from openscans.types import InferenceOptions, ResultWarning, TrainedModel, WarningCode

EXACT = Way("float32", Volumes())
ROUNDED = Way("int8", Volumes())
"""What is not convolved in int8 is computed in float32."""

TRIAL_VERSION = "1"
"""To be raised whenever ranges are taken, channels equalised or convolutions rounded in another way."""

NO_KERNELS = Int8Trial(None, {})
"""Where the runtime computes nothing in int8."""

FINEST = "encoder.stages.0."
"""Of the encoder's first stage, whose input is the image: 8 bits over all that a CT shows are steps of 10 HU. Its first
convolution is computed in float32 always, as the last one, to the logits, is; both take hardly any time. The rest of
the stage is where the labels differ by more than a little, which takes a quarter more time."""

log = logging.getLogger("openscans.networks")


def load_network(
    model: TrainedModel,
    plan: Plan,
    *,
    device: str,
    options: InferenceOptions,
    core: openvino.Core | None = None,
) -> Network:
    """The network of ``model`` in the precision that ``options`` name, see `network.Load`; ``core`` None: a new one.

    int8 is for volumes; where the runtime has no kernels for those, float32 runs over planes.
    """
    core = core or openvino.Core()
    if options.precision != "int8" or isinstance(choose_way(core, options).formulation, Planes):
        return OpenVinoNetwork(model, plan, device=device, options=options, core=core)
    return Int8Network(model, plan, device=device, options=options, core=core)


class Int8Network(Network):
    """A network that is tried in int8; see above, and `network.Network`."""

    def __init__(
        self, model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions, core: openvino.Core
    ) -> None:
        self.plan = plan
        self.device = device
        self._model, self._options, self._core = model, options, core
        self._trials = TrialCache(options.cache_folder)
        self._trial_key = key_of(core, model, ROUNDED, TRIAL_VERSION)
        self._names = [name for passage in passages(plan.architecture) for name in passage.names]
        self._observed: dict[str, ChannelRange] | None = None
        """What is known of the ranges so far; None once it is decided what runs."""
        self._compiled: CompiledNetwork | None = None
        """What runs; None while that is being decided, and after it could not be, as for want of memory."""
        self._load()
        self.patch_s = reckon_pace(core, plan, EXACT, options).patch_s

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x); overwritten by the next call."""
        compiled = self._load() if self._compiled is None else self._compiled
        began_s = time.perf_counter()
        found = compiled.logits(patch)
        self.patch_s = time.perf_counter() - began_s
        if self._observed is not None:
            self._observed = self._widened(self._observed, compiled)
            labels = found.argmax(axis=0)
            if np.count_nonzero(labels) >= int8_trials.LEAST_NAMED:
                # Let go before another is compiled: a network takes more memory than all the rest of the worker.
                ranges, self._observed, self._compiled = self._observed, None, None
                del compiled
                self._decide(patch, labels, ranges)
        return found

    def release(self) -> None:
        if self._compiled is not None:
            self._compiled.release()

    def _load(self) -> CompiledNetwork:
        """Run what was decided, or else float32 that tells ranges."""
        trial = self._trials.get(self._trial_key)
        if trial is None:
            self._observed = {}
            graph = tell_ranges(build_graph(self.plan, self._tensors(), openvino.Type.f32), self._names)
            compiled = self._core.compile_model(graph, "CPU", settings_of(EXACT, self._options))
            return self._run(CompiledNetwork(compiled, EXACT))
        return self._run_as_tried(trial)

    def _run_as_tried(self, trial: Int8Trial) -> CompiledNetwork:
        return self._run(self._compile_once(trial)) if trial.is_accepted else self._refuse(trial)

    def _run(self, compiled: CompiledNetwork) -> CompiledNetwork:
        self._compiled = compiled
        self.runs = compiled.tell(self.plan, self.device)
        return compiled

    def _widened(self, observed: Ranges, compiled: CompiledNetwork) -> dict[str, ChannelRange]:
        """``observed`` and those that ``compiled`` tells of its last patch."""
        told = {}
        for index, name in enumerate(self._names):
            low, high = (compiled.result(2 * index + end) for end in (0, 1))
            own = ChannelRange(low, high)
            told[name] = own.widened(observed[name]) if name in observed else own
        return told

    def _decide(self, patch: NDArray[np.float32], labels: NDArray[np.intp], observed: Ranges) -> None:
        """Run from now on what is the fastest that gives a ``patch`` (z, y, x) the ``labels`` that float32 gave it."""
        without_finest = {name: own for name, own in observed.items() if not name.startswith(FINEST)}
        trials = []
        for ranges, least in ((observed, int8_trials.PLAIN_AGREEMENT), (without_finest, int8_trials.LEAST_AGREEMENT)):
            trial = self._try(patch, labels, ranges, least)
            trials += [] if trial is None else [trial]
            if self._compiled is not None or trial is NO_KERNELS:
                break
        if not trials:
            # That nothing compiled may have been for want of memory; the next process tries again.
            self._refuse(NO_KERNELS)
            return
        # What runs by now, or else the better one, which may still be good enough.
        chosen = trials[-1] if self._compiled else max(trials, key=lambda one: one.agreement or 0.0)
        self._trials.put(self._trial_key, chosen)
        if self._compiled is None:
            self._run_as_tried(chosen)

    def _try(
        self, patch: NDArray[np.float32], labels: NDArray[np.intp], ranges: Ranges, least: float
    ) -> Int8Trial | None:
        """Run in int8 in these ``ranges`` if the ``least`` share of the ``patch`` gets these ``labels``.

        None where it cannot be compiled.
        """
        try:
            settings = settings_of(ROUNDED, self._options)
            compiled = self._core.compile_model(self._rounded_graph(ranges), "CPU", settings)
        except RuntimeError as error:
            log.warning("OpenVINO compiles no int8 here: %s", str(error).splitlines()[-1])
            return None
        if int8_count(convolution_kernels(compiled)) == 0:
            return NO_KERNELS
        agreement = agreement_of(labels, CompiledNetwork(compiled, ROUNDED).logits(patch).argmax(axis=0))
        log.info("%s in int8 labels %.4f of a patch as in float32", self.plan.dataset_name, agreement)
        trial = Int8Trial(agreement, ranges)
        if agreement >= least:
            self._run(keep(self._core, compiled, self._compiled_key(trial), ROUNDED, self._options))
        return trial

    def _refuse(self, trial: Int8Trial) -> CompiledNetwork:
        """Run in float32, and say why."""
        self.warnings = (ResultWarning(WarningCode.INT8_REFUSED, _refusal(self.plan, trial)),)
        return self._run(compile_network(self._core, self._model, self.plan, EXACT, self._options))

    def _compile_once(self, trial: Int8Trial) -> CompiledNetwork:
        key = self._compiled_key(trial)
        return compile_once(self._core, lambda: self._rounded_graph(trial.ranges), key, ROUNDED, self._options)

    def _compiled_key(self, trial: Int8Trial) -> str:
        return key_of(self._core, self._model, ROUNDED, TRIAL_VERSION, trial.digest)

    def _rounded_graph(self, ranges: Ranges) -> openvino.Model:
        """The network, its channels equalised, with those convolutions in int8 whose ``ranges`` are given."""
        magnitudes = {name: own.magnitude for name, own in ranges.items()}
        tensors, factors = equalise(self.plan.architecture, self._tensors(), magnitudes)
        graph = build_graph(self.plan, tensors, openvino.Type.i8)
        ends = {name: own.divided(factors[name]).ends for name, own in ranges.items()}
        quantise(graph, ends)
        return graph

    def _tensors(self) -> Tensors:
        return read_tensors(self._model.folder / CHECKPOINT)


def _refusal(plan: Plan, trial: Int8Trial) -> str:
    if trial.agreement is None:
        return f"{plan.dataset_name}: OpenVINO does not compute it in int8 here; float32 was used."
    return (
        f"{plan.dataset_name}: in int8 only {trial.agreement:.1%} of the voxels that are named get the label that they "
        f"have in float32, of which {int8_trials.LEAST_AGREEMENT:.1%} must; float32 was used."
    )
