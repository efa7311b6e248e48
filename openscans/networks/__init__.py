"""A weights folder becomes a callable from a patch to logits on a device; only room that knows OpenVINO and PyTorch.

It knows nothing of images on disk, of HTTP, or of where weights come from. Importing it loads neither library.
"""

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from openscans.errors import DamagedWeights, InvalidRequest, OutOfMemory
from openscans.networks.checkpoint import CHECKPOINT, check_checkpoint
from openscans.networks.compiled_cache import digest_of, tidy
from openscans.networks.engines import engine_of, is_available
from openscans.networks.network import Load, Network, UnfitDevice
from openscans.networks.plans import Plan, read_plan
from openscans.networks.torch_engine import TORCH_ON_CPU
from openscans.system import devices
from openscans.types import InferenceOptions, ResultWarning, RunningNetwork, TrainedModel, WarningCode

__all__ = [
    "TORCH_ON_CPU",
    "Load",
    "Network",
    "Plan",
    "UnfitDevice",
    "check_training",
    "choose_device",
    "fallback_warning",
    "load",
    "load_folder",
    "patch_bytes",
    "read_plan",
    "slow_engine_warnings",
    "tidy",
]

NNUNET_STEP = 0.5
"""The sliding window's step that nnU-Net takes where nobody asks for another (`nnUNetPredictor`)."""


def check_training(folder: Path) -> None:
    """Raise DamagedWeights unless the files in ``folder`` describe a network, and weights that they hold.

    Whether the weights are that network's shows when it is loaded.
    """
    read_plan(folder)
    check_checkpoint(folder / CHECKPOINT)


def load(model: TrainedModel, plan: Plan, *, device: str, options: InferenceOptions) -> Network:
    """The network of ``model``, whose ``plan`` was read before, on a ``device`` that `choose_device` gave.

    Raises DamagedWeights, InvalidRequest where the device's library is not installed, OutOfMemory, and UnfitDevice.
    """
    engine = engine_of(device)
    try:
        make = engine.import_network()
    except ImportError as error:
        raise InvalidRequest(
            f"The device {device} needs {engine.library}, which is not installed here.", hint="Ask for the device cpu."
        ) from error
    return make(model, plan, device=device, options=options)


def load_folder(folder: Path, *, device: str, options: InferenceOptions) -> Network:
    """`load` of the training in ``folder``, of which nobody knows more: its files are digested here."""
    plan = read_plan(folder)
    try:
        digest = digest_of(folder / name for name in (CHECKPOINT, "plans.json", "dataset.json"))
    except OSError as error:
        raise DamagedWeights("The checkpoint is missing or cannot be read.") from error
    model = TrainedModel(plan.dataset_name, folder, digest, plan.spacing_zyx_mm[0], NNUNET_STEP)
    return load(model, plan, device=device, options=options)


def choose_device(wish: str) -> tuple[str, ResultWarning | None]:
    """The device for a ``wish`` (auto, cpu, cpu:torch, cuda, cuda:N, mps); a warning where it is another one.

    Raises InvalidRequest where there is no device of that name.
    """
    if wish == "auto":
        return next(filter(is_available, devices.AUTOMATIC)), None
    engine = engine_of(wish)
    if engine.is_available(wish):
        return wish, None
    missing = f"needs {engine.library}, which is not installed here"
    why = "is not available here" if find_spec(engine.package) else missing
    return "cpu", ResultWarning(WarningCode.DEVICE_FALLBACK, f"The device {wish} {why}; the CPU was used.")


def patch_bytes(plan: Plan, device: str) -> int:
    """The least that one run of ``plan`` on ``device`` takes of this machine's memory."""
    return engine_of(device).patch_bytes(plan, device)


def fallback_warning(device: str, reason: OutOfMemory | UnfitDevice) -> ResultWarning:
    """The warning where a detection had to leave ``device`` for the CPU."""
    what = (
        f"The device {device} computes otherwise than the CPU, or not at all"
        if isinstance(reason, UnfitDevice)
        else f"The memory of the device {device} did not suffice"
    )
    return ResultWarning(WarningCode.DEVICE_FALLBACK, f"{what}; the CPU was used.")


def slow_engine_warnings(ran: Iterable[RunningNetwork]) -> tuple[ResultWarning, ...]:
    """A warning where any of the networks that ``ran`` is slow for want of kernels."""
    slow = [network for network in ran if network.slow]
    if not slow:
        return ()
    return (
        ResultWarning(
            WarningCode.SLOW_ENGINE,
            f"{slow[0].library} has no fast kernels for this processor, so that the networks run up to a hundred times "
            "slower than elsewhere. Use fast_mode, a machine with a graphics card, or another version of OpenVINO.",
        ),
    )
