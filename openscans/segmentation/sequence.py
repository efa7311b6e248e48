"""Which level every bone of a spine is, read from all of them together; and what that says about the network's labels.

Knows bones by their middles and by the shares that the network gave to each level; nothing of voxels. No label is ever
changed: where the best sequence is not the network's own, both are named.

How: bones are put in their order along the spine; each suits a level as much as the network says (`level_scores`), and
each step from one to the next as anatomy and distances say. Of all sequences the one with the largest sum is told
(Viterbi), and how probable every level of every bone is, over all sequences (forward-backward). A sequence may begin
and end anywhere, as a field of view does.

What it cannot find, and the words for it:

- A long run of neighbours that are all shifted by one (eight to ten and more: C3 to T12, say) is not found. The network
  is believed, and where the shift ends the rest is explained by a vertebra more or less than usual, with a high
  probability. That is why such a reading is always worded "one vertebra more or less than usual, or a numbering shift
  above it". Where all that is in view is shifted nothing is told at all.
- Without the sacrum in view four lumbar vertebrae look like five and a field of view that ends with L5.
- Two bones that are taken for one, as fused blocks and cages are, cost more than mistaken levels do. An L6 against a
  first sacral vertebra that is free is a convention. In metal the shares say nothing.

`python -m benchmarks.sequence` tells how often it is right, on synthetic spines only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np

from openscans.segmentation import level_scores, spine_curve
from openscans.segmentation.level_scores import LEVEL_NUMBERS, Scores
from openscans.types import HEAD_TO_FOOT, Point, ResultWarning, WarningCode

LEAST_ALTERNATIVE = 0.05
"""The probability of another level from which on it is told."""

LEAST_S1_SHARE = 0.1
"""Of a bone on the sacrum, from which on it is S1 and not the one above; L5's own is next to nothing."""

ON_SACRUM = {"L4": level_scores.FEWER_COST["L4", "S1"], "L5": 0.0, "L6": 0.0, "S1": 0.0}
"""What a bone that lies on the sacrum and does not look like S1 can be, and at what cost: S1 may not have been seen."""

FEWER_WORDS = {("T11", "L1"): "eleven thoracic", ("L4", "S1"): "four lumbar"}


@dataclass(frozen=True)
class VertebraInstance:
    """One bone that was found. ``label`` is the network's own.

    ``center_mm`` (LPS) is the body's middle where it has one. ``shares``: level → mean probability over the bone's
    core, background and sacrum left out; they sum to 1. ``on_sacrum``: it touches S1's or the sacrum's voxels from
    above, or is S1.
    """

    label: str
    center_mm: Point
    shares: Mapping[str, float]
    on_sacrum: bool


@dataclass(frozen=True)
class SequenceReading:
    """The best sequence of levels; all but ``order`` one per bone, from head to foot.

    ``order`` are the places of these bones among those that were given. ``probabilities``: level → probability.
    ``anomalies`` are "T13", "L6", "eleven thoracic" and "four lumbar", as far as ``levels`` have them.
    """

    levels: tuple[str, ...]
    probabilities: tuple[Mapping[str, float], ...]
    anomalies: tuple[str, ...]
    order: tuple[int, ...]


def read_sequence(instances: Sequence[VertebraInstance]) -> SequenceReading:
    """The levels of all bones together."""
    if not instances:
        return SequenceReading((), (), (), ())
    shares = level_scores.share_matrix([one.shares for one in instances])
    numbers = np.array([LEVEL_NUMBERS.get(one.label, 0) for one in instances], np.float64)
    points_mm = np.array([astuple(one.center_mm) for one in instances], np.float64)
    order, gaps_mm = spine_curve.order_along(points_mm, numbers)
    scale = level_scores.patient_scale(gaps_mm, numbers[order])
    bones = level_scores.bone_scores(shares[order]) + _anchors([instances[index] for index in order], shares[order])
    steps = level_scores.step_scores(gaps_mm, scale)
    levels = tuple(HEAD_TO_FOOT[number] for number in _best_path(bones, steps))
    return SequenceReading(
        levels,
        tuple(dict(zip(HEAD_TO_FOOT, row.tolist(), strict=True)) for row in _probabilities(bones, steps)),
        tuple(_anomalies(levels, gaps_mm, scale)),
        tuple(order.tolist()),
    )


def sequence_warnings(instances: Sequence[VertebraInstance], reading: SequenceReading) -> list[ResultWarning]:
    """One where the best sequence is not the network's own."""
    own = [instances[index].label for index in reading.order]
    differing = [f"{label} as {level}" for label, level in zip(own, reading.levels, strict=True) if label != level]
    if not differing:
        return []
    words = f"Along the spine as a whole the levels read otherwise: {', '.join(differing)}."
    if reading.anomalies:
        words += (
            f" That takes one vertebra more or less than usual ({', '.join(reading.anomalies)}),"
            " or a numbering shift above it."
        )
    return [ResultWarning(WarningCode.SEQUENCE_DIFFERS, f"{words} No label was changed; check the numbering.")]


def level_doubts(
    reading: SequenceReading, instances: Sequence[VertebraInstance]
) -> list[tuple[float, tuple[tuple[str, float], ...]]]:
    """For each of ``instances``, as given: how probable its label is, and which other levels are, likeliest first."""
    probabilities = dict(zip(reading.order, reading.probabilities, strict=True))
    return [_doubts(one.label, probabilities[index]) for index, one in enumerate(instances)]


def _doubts(label: str, probabilities: Mapping[str, float]) -> tuple[float, tuple[tuple[str, float], ...]]:
    others = [
        (level, probability)
        for level, probability in probabilities.items()
        if level != label and probability > LEAST_ALTERNATIVE
    ]
    return probabilities.get(label, 0.0), tuple(sorted(others, key=lambda other: -other[1]))


def _anchors(instances: Sequence[VertebraInstance], shares: Scores) -> Scores:
    """(bones, levels), of bones from head to foot: what lies lowest on the sacrum is S1, or the last above it."""
    scores = np.zeros((len(instances), len(HEAD_TO_FOOT)))
    on_sacrum = [place for place, one in enumerate(instances) if one.on_sacrum]
    if on_sacrum:
        lowest = on_sacrum[-1]
        is_s1 = instances[lowest].label == "S1" or shares[lowest, LEVEL_NUMBERS["S1"]] >= LEAST_S1_SHARE
        scores[lowest] = level_scores.anchor_scores({"S1": 0.0} if is_s1 else ON_SACRUM)
    return scores


def _best_path(bones: Scores, steps: Scores) -> list[int]:
    """Of every bone the number of its level in the sequence with the largest sum (Viterbi)."""
    best, came_from = bones[0], []
    for row, step in zip(bones[1:], steps, strict=True):
        sums = best[:, None] + step
        came_from.append(sums.argmax(axis=0))
        best = sums.max(axis=0) + row
    path = [int(best.argmax())]
    for from_here in reversed(came_from):
        path.append(int(from_here[path[-1]]))
    return path[::-1]


def _probabilities(bones: Scores, steps: Scores) -> Scores:
    """(bones, levels), over all sequences (forward-backward).

    The way back is the way forth of the bones turned round, so both are gone at once; a bone's own score is in both.
    """
    both = np.stack([bones, bones[::-1]], axis=1)
    to_next = np.stack([steps.transpose(0, 2, 1), steps[::-1]], axis=1)
    reached = [both[0]]
    for row, step in zip(both[1:], to_next, strict=True):
        reached.append(row + _log_sum_exp(step + reached[-1][:, None]))
    ways = np.array(reached)
    scores = ways[:, 0] + ways[::-1, 1] - bones
    probabilities: Scores = np.exp(scores - _log_sum_exp(scores)[:, None])
    return probabilities


def _log_sum_exp(scores: Scores) -> Scores:
    """Over the last axis, along which nothing is all minus infinity: each level may follow itself."""
    largest = scores.max(axis=-1)
    sums: Scores = largest + np.log(np.exp(scores - largest[..., None]).sum(axis=-1))
    return sums


def _anomalies(levels: Sequence[str], gaps_mm: Scores, scale: float) -> Iterator[str]:
    yield from (variant for variant in level_scores.VARIANTS if variant in levels)
    for place, neighbours in enumerate(pairwise(levels)):
        if neighbours in FEWER_WORDS and level_scores.is_step_of_fewer(neighbours, float(gaps_mm[place]), scale):
            yield FEWER_WORDS[neighbours]
