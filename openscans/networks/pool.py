"""Networks that are loaded, or being loaded while something else is done; knows nothing of what they are run on.

Rules for threads. One thread asks; the loader's own thread does nothing but load, one network after another, and what
it loads is seen only through its future.
"""

from concurrent.futures import Future, ThreadPoolExecutor

from openscans import networks
from openscans.types import InferenceOptions, TrainedModel


class NetworkPool:
    """Keeps every network it has loaded."""

    def __init__(self, options: InferenceOptions, load: networks.Load = networks.load) -> None:
        self._options = options
        self._load = load
        self._loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
        self._networks: dict[tuple[str, str], Future[networks.Network]] = {}

    def holds(self, model: TrainedModel, device: str) -> bool:
        """Whether the network of ``model`` is here or on its way."""
        loading = self._networks.get((model.sha256, device))
        return loading is not None and not _has_failed(loading)

    def prepare(self, model: TrainedModel, device: str) -> None:
        """Begin to load ``model`` for ``device``, unless it is here or on its way."""
        if not self.holds(model, device):
            key = model.sha256, device
            self._networks[key] = self._loader.submit(self._load, model.folder, device=device, options=self._options)

    def take(self, model: TrainedModel, device: str) -> networks.Network:
        """The network of ``model``, as soon as it is loaded. Raises DamagedWeights, OutOfMemory."""
        key = model.sha256, device
        if key not in self._networks:
            self.prepare(model, device)
        loading = self._networks[key]
        if loading.exception() is not None:
            del self._networks[key]
        return loading.result()


def _has_failed(loading: Future[networks.Network]) -> bool:
    """What failed is tried again for the next image: the weights may be whole, or memory be free by then."""
    return loading.done() and loading.exception() is not None
