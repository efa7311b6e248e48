"""Trains the small networks on phantoms: seeded, in the layout of the real 298, 292, 297 and 756.

    python -m phantom.train --results phantom/weights [--only 292] [--device cuda --batch 16 --volumes 256 --steps 3000]

Without further words on the CPU, in about an hour; a CUDA card has time for more, larger batches of larger patches.
"""

import argparse
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

try:
    import torch
except ImportError as error:
    raise SystemExit("Training needs PyTorch, which is not installed here; ./setup.sh --full does.") from error

from openscans.networks.checkpoint import read_tensors
from phantom import spine
from phantom.examples import labels_of, patches, scans, used_heads
from phantom.layout import build_module, training_folder, write_training_folder
from phantom.specs import SPECS, NetworkSpec, Triple, small

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPlan:
    """How one network is trained: on how many phantoms, for how many steps of how many patches.

    ``patch_zyx``: what is seen at once in training; the network that comes out of it may be run on more.
    ``begins_as``: the dataset whose trained network it starts from. What it has learned of densities holds at any
    resolution, and coarse voxels show many more vertebrae a second.
    """

    spec: NetworkSpec
    volumes: int
    steps: int
    batch: int
    patch_zyx: Triple
    peak_rate: float = 1.5e-3
    begins_as: int | None = None


def _small(dataset: int, patch_zyx: Triple) -> NetworkSpec:
    return small(SPECS[dataset], base_features=16, max_features=32, patch_zyx=patch_zyx)


TRAINING_PLANS = {
    297: TrainingPlan(_small(297, (48, 32, 32)), volumes=64, steps=1400, batch=8, patch_zyx=(48, 32, 32)),
    # Run on more of the spine than it is trained on, it sees the same whatever the scan's tilt: centres differ by less.
    292: TrainingPlan(
        _small(292, (160, 96, 96)), volumes=96, steps=1800, batch=2, patch_zyx=(64, 64, 64), begins_as=297
    ),
    756: TrainingPlan(
        _small(756, (96, 96, 64)),
        volumes=96,
        steps=1500,
        batch=1,
        patch_zyx=(64, 64, 64),
        peak_rate=1e-3,
        begins_as=292,
    ),
    298: TrainingPlan(_small(298, (64, 64, 64)), volumes=64, steps=600, batch=6, patch_zyx=(32, 32, 32), begins_as=297),
}

DECODER_STAGE = re.compile(r"(decoder\.(?:stages|transpconvs|seg_layers)\.)(\d+)")

LEAST_BALANCE = 0.2
"""How much of the weight for bone is left when most of the training is done."""

PLAIN_WEIGHT = 4.0
"""Keeps the plain mean's gradients, most of whose voxels are easy, at about the size of the balanced one's."""

NEVER = -30.0
"""The logit of a class that no phantom shows."""


def loss_of(logits: torch.Tensor, labels: torch.Tensor, balance: float) -> torch.Tensor:
    """Cross entropy plus soft Dice over the labels that the batch holds.

    ``balance``: 1 gives half of the cross entropy to bone, 0 gives every voxel the same weight. Bone is a few
    hundredths of a patch, so that a plain mean would hardly tell one level from another; but a weight for bone makes
    the network draw it too large.
    """
    entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    bone = labels > 0
    present = labels[bone].unique()
    if present.numel() == 0:
        return entropy.mean()
    balanced = entropy[bone].mean() + entropy[~bone].mean()
    blended = balance * balanced + (1 - balance) * PLAIN_WEIGHT * entropy.mean()
    probabilities = logits.softmax(1)[:, present]
    truth = (labels[:, None] == present[None, :, None, None, None]).to(probabilities.dtype)
    overlap = (probabilities * truth).sum((0, 2, 3, 4))
    total = probabilities.sum((0, 2, 3, 4)) + truth.sum((0, 2, 3, 4))
    return blended + 1 - (2 * overlap / total.clamp(min=1)).mean()


def _share_right(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of bone voxels that have the right label."""
    bone = labels > 0
    return float((logits.argmax(1)[bone] == labels[bone]).float().mean()) if bool(bone.any()) else 1.0


def _spread_thresholds(module: torch.nn.Module) -> None:
    """Let the channels' leaky ReLUs bend at different intensities from the start.

    An instance norm takes its input's mean away, so all would bend at the patch's mean grey value, and learning to tell
    densities apart would begin with learning to bend elsewhere.
    """
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.InstanceNorm3d) and name.startswith(("encoder.stages.0", "encoder.stages.1")):
            torch.nn.init.uniform_(part.bias, -1.5, 1.5)


def _pair_heads(module: torch.nn.Module, spec: NetworkSpec) -> None:
    """Let each level's head begin as the sum of two features, one for its left and one for its right density.

    So the ten densities are learned from all levels that share them, instead of twenty-five levels one by one.
    """
    numbers = labels_of(spec)
    head = module.get_parameter(f"decoder.seg_layers.{len(spec.strides) - 2}.weight")
    bias = module.get_parameter(f"decoder.seg_layers.{len(spec.strides) - 2}.bias")
    with torch.no_grad():
        head *= 0.1
        unused = sorted(set(range(spec.heads)) - set(used_heads(spec)))
        head[unused] = 0
        bias[unused] = NEVER
        for level in spine.LEVELS:
            left_hu, right_hu = spine.code(level)
            number = int(numbers[spine.LABELS[level]])
            head[number, spine.LEFT_HU.index(left_hu)] += 1
            head[number, len(spine.LEFT_HU) + spine.RIGHT_HU.index(right_hu)] += 1
        head[0, -1] += 1
        head[int(numbers[spine.LABELS["sacrum"]]), -2] += 1


def _inherit(module: torch.nn.Module, spec: NetworkSpec, results: Path, parent: NetworkSpec) -> None:
    """Copy the parent's tensors to the stages that are as far from the input or, in the decoder, from the output."""
    deeper = len(spec.strides) - len(parent.strides)
    parameters = dict(module.named_parameters())
    heads = dict(zip(labels_of(parent).tolist(), labels_of(spec).tolist(), strict=True))
    tensors = read_tensors(training_folder(results, parent) / "fold_0" / "checkpoint_final.pth")
    with torch.no_grad():
        for name, values in tensors.items():
            own = DECODER_STAGE.sub(lambda found: f"{found[1]}{int(found[2]) + deeper}", name)
            tensor = torch.from_numpy(values.copy())
            if own.startswith("decoder.seg_layers"):
                for parent_number, number in heads.items():
                    parameters[own][number] = tensor[parent_number]
            elif own.startswith("decoder.transpconvs") and own.endswith("weight"):
                parameters[own].copy_(_as_wide(tensor, parameters[own]))
            else:
                parameters[own].copy_(tensor)


def _as_wide(kernel: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """A parent's transposed convolution for a stage that keeps an axis: the mean of what it makes of either half."""
    for axis in (2, 3, 4):
        if own.shape[axis] == 1:
            kernel = kernel.mean(axis, keepdim=True)
    return kernel


def _begin(course: TrainingPlan, results: Path, earlier: Path | None) -> torch.nn.Module:
    """The module before training: the network of an ``earlier`` training to go on with, or a new one."""
    module = build_module(course.spec)
    if earlier is not None:
        _inherit(module, course.spec, earlier, course.spec)
        return module
    _spread_thresholds(module)
    _pair_heads(module, course.spec)
    if course.begins_as is not None:
        _inherit(module, course.spec, results, TRAINING_PLANS[course.begins_as].spec)
    return module


def train(course: TrainingPlan, results: Path, *, device: str, earlier: Path | None = None) -> torch.nn.Module:
    """The trained module; ``results`` holds the network that it begins as, ``earlier`` one to go on with."""
    torch.manual_seed(course.spec.dataset)
    images = scans(course.spec, course.volumes)
    log.info("%d: %d phantoms drawn", course.spec.dataset, len(images))
    module = _begin(course, results, earlier).to(device)
    optimiser = torch.optim.AdamW(module.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=course.peak_rate, total_steps=course.steps, pct_start=0.1, div_factor=4
    )
    used = torch.tensor(used_heads(course.spec), device=device)
    random = np.random.default_rng(course.spec.dataset + 1)
    average, right = 0.0, 0.0
    seen = replace(course.spec, patch_zyx=course.patch_zyx)
    for step, (batch, labels) in enumerate(patches(seen, images, course.batch, random)):
        if step == course.steps:
            break
        optimiser.zero_grad()
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            logits = module(batch.to(device))[:, used].float()
        shown = torch.searchsorted(used, labels.to(device))
        loss = loss_of(logits, shown, max(1 - 1.4 * step / course.steps, LEAST_BALANCE))
        loss.backward()
        # In bfloat16 the variance of an even patch can come out below zero, once in some hundred steps.
        if torch.isfinite(torch.nn.utils.clip_grad_norm_(module.parameters(), 12)):
            optimiser.step()
        schedule.step()
        if torch.isfinite(loss):
            average = 0.95 * average + 0.05 * loss.item() if average else loss.item()
        right = 0.95 * right + 0.05 * _share_right(logits, shown)
        if step % 25 == 0:
            log.info(
                "%d: step %d of %d, loss %.3f, %.3f of bone right",
                course.spec.dataset,
                step,
                course.steps,
                average,
                right,
            )
    return module.cpu().eval()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--only", type=int, choices=sorted(TRAINING_PLANS))
    parser.add_argument("--earlier", type=Path, help="weights folder of an earlier training to go on with")
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    own = parser.add_argument_group("in the place of each course's own")
    own.add_argument("--volumes", type=int, help="phantoms to train on")
    own.add_argument("--steps", type=int, help="training steps")
    own.add_argument("--batch", type=int, help="patches of a step")
    own.add_argument("--patch", dest="patch_zyx", type=int, nargs=3, metavar=("Z", "Y", "X"), help="voxels of a patch")
    own.add_argument("--peak-rate", type=float, help="highest learning rate")
    arguments = parser.parse_args()
    changes = {name: getattr(arguments, name) for name in ("volumes", "steps", "batch", "patch_zyx", "peak_rate")}
    changes = {name: value for name, value in changes.items() if value is not None}
    for dataset in [arguments.only] if arguments.only else TRAINING_PLANS:
        course = replace(TRAINING_PLANS[dataset], **changes)
        module = train(course, arguments.results, device=arguments.device, earlier=arguments.earlier)
        folder = write_training_folder(arguments.results, course.spec, module.state_dict())
        log.info("%d: written to %s", dataset, folder)


if __name__ == "__main__":
    main()
