"""Networks that are loaded, or being loaded while something else is done, and the plans that were read for them.

Knows nothing of what they are run on. Rules for threads. One thread asks, and reads the plans; the loader's own thread
does nothing but load, one network after another, and what it loads is seen only through its future.
"""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from openscans import networks
from openscans.networks.plans import Plan, plan_of
from openscans.types import InferenceOptions, RunningNetwork, TrainedModel


class NetworkPool:
    """Keeps every network it has loaded, and every plan it has read, by the digest of the weights."""

    def __init__(self, options: InferenceOptions, load: networks.Load = networks.load) -> None:
        self._options = options
        self._load = load
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._networks: dict[tuple[str, str], Future[networks.Network]] = {}
        self._plans: dict[str, Plan] = {}

    def plan(self, model: TrainedModel) -> Plan:
        """The plan of ``model``, read when it is asked for first. Raises DamagedWeights."""
        if model.sha256 not in self._plans:
            self._plans[model.sha256] = plan_of(model)
        return self._plans[model.sha256]

    def holds(self, model: TrainedModel, device: str) -> bool:
        """Whether the network of ``model`` is here or on its way."""
        loading = self._networks.get((model.sha256, device))
        return loading is not None and not _has_failed(loading)

    def prepare(self, model: TrainedModel, device: str) -> None:
        """Begin to load ``model`` for ``device``, unless it is here or on its way. Raises DamagedWeights (its plan)."""
        if not self.holds(model, device):
            loading = self._loader.submit(self._load, model, self.plan(model), device=device, options=self._options)
            self._networks[model.sha256, device] = loading

    def take(self, model: TrainedModel, device: str) -> networks.Network:
        """The network of ``model``, as soon as it is loaded. Raises DamagedWeights, OutOfMemory."""
        key = model.sha256, device
        if key not in self._networks:
            self.prepare(model, device)
        loading = self._networks[key]
        if loading.exception() is not None:
            del self._networks[key]
        return loading.result()

    def running(self, models: Iterable[TrainedModel], device: str) -> tuple[RunningNetwork, ...]:
        """How those of ``models`` are run that are loaded."""
        loading = (self._networks.get((model.sha256, device)) for model in models)
        return tuple(one.result().runs for one in loading if one is not None and one.done() and not _has_failed(one))


def _has_failed(loading: Future[networks.Network]) -> bool:
    """What failed is tried again for the next image: the weights may be whole, or memory be free by then."""
    return loading.done() and loading.exception() is not None
