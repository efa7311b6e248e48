"""Networks that are loaded, or being loaded while something else is done, the plans that were read, and their pace.

Knows nothing of what they are run on. Rules for threads. One thread asks, and reads the plans; the loader's own thread
does nothing but load, one network after another, and what it loads is seen only through its future.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from openscans import networks
from openscans.networks import pace
from openscans.networks.plans import Plan, plan_of
from openscans.types import InferenceOptions, ResultWarning, RunningNetwork, TrainedModel

WORTH_KEEPING = 0.1
"""By what share of it a patch's time must have changed to be written anew."""


class NetworkPool:
    """Keeps every network it has loaded, and every plan it has read, by the digest of the weights."""

    def __init__(self, options: InferenceOptions, load: networks.Load = networks.load) -> None:
        self._options = options
        self._load = load
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._networks: dict[tuple[str, str], Future[networks.Network]] = {}
        self._plans: dict[str, Plan] = {}
        self._paces = pace.PaceBook(options.cache_folder)
        self._kept_s: dict[tuple[str, str], float | None] = {}

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
            kept_s = self._kept_patch_s(model, device)
            self._networks[model.sha256, device] = self._loader.submit(
                self._load_with_pace, model, self.plan(model), device, kept_s
            )

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
        return tuple(network.runs for network in self._loaded(models, device))

    def warnings(self, models: Iterable[TrainedModel], device: str) -> tuple[ResultWarning, ...]:
        """What should be known of how those of ``models`` are run that are loaded."""
        return tuple(warning for network in self._loaded(models, device) for warning in network.warnings)

    def _loaded(self, models: Iterable[TrainedModel], device: str) -> Iterator[networks.Network]:
        loading = (self._networks.get((model.sha256, device)) for model in models)
        return (one.result() for one in loading if one is not None and one.done() and not _has_failed(one))

    def patch_s(self, model: TrainedModel, device: str) -> float | None:
        """The seconds that a patch of ``model`` should take: its network's own, or those kept until it is loaded.

        None where nobody knows yet.
        """
        loading = self._networks.get((model.sha256, device))
        if loading is not None and loading.done() and loading.exception() is None:
            return loading.result().patch_s
        return self._kept_patch_s(model, device)

    def keep_pace(self, model: TrainedModel, device: str) -> None:
        """Keep what the last patch of ``model`` took for the next process, where that differs from what is kept."""
        took_s, kept_s = self.patch_s(model, device), self._kept_patch_s(model, device)
        if took_s is not None and (kept_s is None or abs(took_s - kept_s) > WORTH_KEEPING * kept_s):
            self._paces.put(took_s, *pace.facts_of(model, device, self._options))
            self._kept_s[model.sha256, device] = took_s

    def _kept_patch_s(self, model: TrainedModel, device: str) -> float | None:
        key = model.sha256, device
        if key not in self._kept_s:
            self._kept_s[key] = self._paces.get(*pace.facts_of(model, device, self._options))
        return self._kept_s[key]

    def _load_with_pace(self, model: TrainedModel, plan: Plan, device: str, kept_s: float | None) -> networks.Network:
        network = self._load(model, plan, device=device, options=self._options)
        network.patch_s = pace.believe(network.patch_s, kept_s)
        return network


def _has_failed(loading: Future[networks.Network]) -> bool:
    """What failed is tried again for the next image: the weights may be whole, or memory be free by then."""
    return loading.done() and loading.exception() is not None
