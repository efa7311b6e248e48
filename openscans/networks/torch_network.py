"""Runs a network with PyTorch: on CUDA in float16, elsewhere in float32."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from numpy.typing import NDArray

from openscans.errors import OutOfMemory
from openscans.networks import fit, pace
from openscans.networks.checkpoint import CHECKPOINT, Tensors, read_tensors
from openscans.networks.network import Network
from openscans.networks.plans import Plan
from openscans.networks.torch_engine import TORCH_ON_CPU
from openscans.system import parallel
from openscans.types import InferenceOptions, RunningNetwork, TrainedModel

MOST_AT_ONCE = 4
"""From two to four a patch gains 2 to 9 % on a large card (benchmarks/RESULTS.md); beyond that nothing was measured."""

SHARE_OF_FREE = 0.5
"""Of a card's free memory; the rest is for what convolutions need on their way, and for other programs."""

WIDE_ARRAYS = 6
"""Arrays as wide as the finest stage that one patch takes at once, beside its logits."""

HALF_BYTES, WHOLE_BYTES = 2, 4

METAL_SHORTAGE = ("MPS backend out of memory", "Invalid buffer size")
"""How its errors begin where a Mac's GPU lacks memory; they are of no class of their own (`MPSAllocator.mm`)."""


class TorchNetwork(Network):
    """A network on a PyTorch device; see `network.Network`.

    Patches of any size that the strides divide are computed. ``memory_format``: how arrays lie on the device.
    """

    def __init__(
        self,
        model: TrainedModel,
        plan: Plan,
        *,
        device: str,
        options: InferenceOptions,
        memory_format: torch.memory_format = torch.channels_last_3d,
    ) -> None:
        self.plan = plan
        self._memory_format = memory_format
        self.device = "cpu" if device == TORCH_ON_CPU else device
        self._device = torch.device(self.device)
        self._on_cuda = self._device.type == "cuda"
        if self._device.type == "cpu":
            torch.set_num_threads(options.threads or parallel.thread_count())
        module = _module(plan, read_tensors(model.folder / CHECKPOINT)).eval()
        with _translate_out_of_memory(self.device):
            self._module = module.to(self._device, memory_format=memory_format)
        self._half = self._on_cuda and options.precision != "float32"
        self._buffer = torch.empty(0)
        self.runs = RunningNetwork(
            plan.dataset_name,
            f"PyTorch {torch.__version__}",
            self.device,
            "float16" if self._half else "float32",
            formulation="volumes",
            kernels={},
            slow=False,
        )
        with _translate_out_of_memory(self.device), torch.inference_mode():
            self.patch_s = plan.patch_multiply_adds * pace.time_multiply_add(self._make_small_run)

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x). Raises OutOfMemory."""
        return next(self._together([patch]))

    def logits_of_each(self, patches: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """`logits` of ``patches`` in turn, as many computed at once as the card has room for."""
        left = iter(patches)
        while some := list(islice(left, self.at_once())):
            yield from self._together(some)

    def at_once(self) -> int:
        """How many patches are computed together."""
        if not self._on_cuda:
            return 1
        features, value_bytes = self.plan.architecture.features[0], HALF_BYTES if self._half else WHOLE_BYTES
        per_voxel = WIDE_ARRAYS * features * value_bytes + self.plan.architecture.heads * (value_bytes + WHOLE_BYTES)
        free_bytes, _ = torch.cuda.mem_get_info(self._device)
        free_bytes += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        fits = int(SHARE_OF_FREE * free_bytes / (per_voxel * math.prod(self.plan.patch_zyx)))
        return min(max(fits, 1), MOST_AT_ONCE)

    def _together(self, patches: Sequence[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        began_s = time.perf_counter()
        batch = torch.from_numpy(np.stack(patches)[:, None])
        if self._on_cuda:
            batch = batch.pin_memory()
        with _translate_out_of_memory(self.device), torch.inference_mode():
            batch = batch.to(self._device, memory_format=self._memory_format, non_blocking=self._on_cuda)
            with self._autocast():
                found = self._module(batch)
            buffer = self._logits_buffer(found.shape)
            buffer.copy_(found.to(torch.float32, memory_format=torch.contiguous_format))
        self.patch_s = (time.perf_counter() - began_s) / len(patches)
        yield from buffer.numpy()

    def _make_small_run(self, edge: int) -> Callable[[], object]:
        """See `pace.time_multiply_add`; a sum that is fetched tells that the device has done it."""
        first, second = (torch.ones(shape, device=self._device) for shape in pace.SMALL_WEIGHTS)
        patch = torch.ones((1, 1, edge, edge, edge), device=self._device).to(memory_format=self._memory_format)

        def run() -> float:
            with self._autocast():
                node = torch.nn.functional.conv3d(patch, first, padding=1)
                return float(torch.nn.functional.conv3d(node, second, padding=1).sum())

        return run

    def _logits_buffer(self, shape: torch.Size) -> torch.Tensor:
        """Where logits arrive; pinned, because a card writes to such memory several times as fast."""
        if self._buffer.shape[1:] != shape[1:] or len(self._buffer) < shape[0]:
            self._buffer = torch.empty(shape, pin_memory=self._on_cuda)
        return self._buffer[: shape[0]]

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.float16) if self._half else nullcontext()


@contextmanager
def _translate_out_of_memory(device: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not str(error).startswith(METAL_SHORTAGE):
            raise
        raise OutOfMemory(f"There is not enough memory on {device}.") from error


def _module(plan: Plan, tensors: Tensors) -> torch.nn.Module:
    fit.check_tensors(plan, tensors)
    architecture = plan.architecture
    module = PlainConvUNet(
        input_channels=1,
        n_stages=len(architecture.features),
        features_per_stage=list(architecture.features),
        conv_op=torch.nn.Conv3d,
        kernel_sizes=[list(kernel) for kernel in architecture.kernels],
        strides=[list(stride) for stride in architecture.strides],
        n_conv_per_stage=list(architecture.encoder_convolutions),
        num_classes=architecture.heads,
        n_conv_per_stage_decoder=list(architecture.decoder_convolutions),
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={"eps": architecture.norm_epsilon, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"negative_slope": architecture.leaky_slope, "inplace": True},
        deep_supervision=False,
    )
    # Not strict: the module names some tensors twice, and a checkpoint may lack needless biases.
    module.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()}, strict=False)
    return module
