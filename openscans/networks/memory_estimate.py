"""How much memory a network takes for a patch, reckoned from its plan before it is loaded; its weights come beside."""

import math

from openscans.networks.plans import Plan

WIDE_ARRAYS = 3
"""Arrays as wide as the finest stage that are there at once: the skip, what is enlarged, and the sum of what is made of
both. Measured 3.2 to 5 with the four networks (benchmarks/RESULTS.md)."""

HALF_BYTES, WHOLE_BYTES = 2, 4
"""Of a value on its way through the network, at least, and of a logit."""


def cpu_patch_bytes(plan: Plan) -> int:
    """The least that one run of ``plan`` takes on the CPU, its logits included."""
    features = plan.architecture.features[0]
    return WIDE_ARRAYS * features * math.prod(plan.patch_zyx) * HALF_BYTES + logits_bytes(plan)


def logits_bytes(plan: Plan) -> int:
    """What the logits of one patch take, which lie in this machine's memory wherever they were computed."""
    return plan.architecture.heads * math.prod(plan.patch_zyx) * WHOLE_BYTES
