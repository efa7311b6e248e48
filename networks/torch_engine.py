"""Runs a network with PyTorch: on CUDA in float16, on MPS, and on the CPU when asked for."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from numpy.typing import NDArray

from errors import OutOfMemory
from findings import EngineOptions
from networks import fit
from networks.checkpoint import Tensors, read_tensors
from networks.plans import Plan, read_plan


class TorchNetwork:
    """A network on a PyTorch device; see `networks.Network`."""

    def __init__(self, folder: Path, device: str, options: EngineOptions) -> None:
        self.plan = read_plan(folder)
        self.device = device
        self._device = torch.device(device)
        if self._device.type == "cpu" and options.threads is not None:
            torch.set_num_threads(options.threads)
        tensors = read_tensors(folder / "fold_0" / "checkpoint_final.pth")
        self._module = _module(self.plan, tensors).to(self._device).eval()
        self._half = self._device.type == "cuda" and options.precision == "auto"

    def logits(self, patch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(class, z, y, x), float32, for a normalised ``patch`` (z, y, x). Raises OutOfMemory."""
        try:
            with torch.inference_mode(), self._autocast():
                found = self._module(torch.from_numpy(patch[None, None].copy()).to(self._device))
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"There is not enough memory on {self.device}.") from error
        output: NDArray[np.float32] = found[0].float().cpu().numpy()
        return output

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cuda", torch.float16) if self._half else nullcontext()


def _module(plan: Plan, tensors: Tensors) -> torch.nn.Module:
    fit.check(plan, tensors)
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
