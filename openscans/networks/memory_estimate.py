"""How much memory a network takes for a patch, reckoned from its plan before it is loaded; its weights come beside."""

import math

from openscans.networks.plans import Plan

WIDE_ARRAYS = 3
"""Arrays as wide as the finest stage that are there at once: the skip, what is enlarged, and the sum of what is made of
both. Measured 3.2 to 5 with the four networks (benchmarks/RESULTS.md)."""

HALF_BYTES, WHOLE_BYTES = 2, 4
"""Of a value on its way through the network, at least, and of a logit."""


def patch_bytes(plan: Plan, device: str) -> int:
    """The least that one run of ``plan`` takes on this machine; elsewhere than on the CPU that is only its logits."""
    voxels = math.prod(plan.patch_zyx)
    logits_bytes = plan.architecture.heads * voxels * WHOLE_BYTES
    if not device.startswith("cpu"):
        return logits_bytes
    return WIDE_ARRAYS * plan.architecture.features[0] * voxels * HALF_BYTES + logits_bytes
