"""How often each doubt is told of spines that have it, and of clean ones.

    python -m benchmarks.doubts [--spines 300]

Spines are synthetic (`phantom.probabilities`), one seed each. Writes Markdown: a row a setting; of a code, the share of
the spines that were given it, in percent.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from time import process_time
from typing import get_args

import numpy as np

from openscans.segmentation import doubts, plausibility, vertebrae
from openscans.types import ResultWarning
from phantom.course import Shape
from phantom.probabilities import (
    ELEVEN_THORACIC,
    FOUR_LUMBAR,
    NUMBERS,
    SIX_LUMBAR,
    THIRTEEN_THORACIC,
    Settings,
    SyntheticSpine,
    draw,
)
from phantom.spine import LEVELS

FIRST_SEED = 50_000
"""Constants were tuned on others, from 0 on."""

SHAPES: tuple[Shape, ...] = get_args(Shape)
Draw = Callable[[int, np.random.Generator], SyntheticSpine]


@dataclass(frozen=True)
class Setting:
    """What is drawn, and what should be told of it: one of ``expected`` at least, or nothing where there is none."""

    name: str
    draw: Draw
    expected: tuple[str, ...] = ()


def whole(seed: int, random: np.random.Generator | None = None, **changes: object) -> SyntheticSpine:
    """All levels, in the shapes by turns."""
    del random
    settings = Settings(seed, shape=SHAPES[seed % len(SHAPES)])
    return draw(replace(settings, **changes))  # type: ignore[arg-type]


def part(seed: int, random: np.random.Generator, *, anchored: bool) -> SyntheticSpine:
    """Four levels or more in a row, cut or not, up from S1 where they are ``anchored``, else between C3 and L5."""
    count = int(random.integers(4, 16))
    first = len(LEVELS) - count if anchored else int(random.integers(2, len(LEVELS) - count))
    return whole(seed, levels=LEVELS[first : first + count], cut=bool(random.integers(2)))


def passed_over(seed: int, random: np.random.Generator) -> SyntheticSpine:
    """One body is not found, and all above it are called as if it had been."""
    missing = int(random.integers(5, 22))
    levels = LEVELS[2:]
    return whole(seed, levels=levels, missing=LEVELS[missing], shifted=LEVELS[2:missing], shift=1)


def shifted(seed: int, random: np.random.Generator, *, most: int) -> SyntheticSpine:
    count = int(random.integers(most - 5, most + 1))
    first = int(random.integers(1, len(LEVELS) - count))
    return whole(seed, shifted=LEVELS[first : first + count], shift=int(random.choice([-1, 1])))


def merged(seed: int, random: np.random.Generator) -> SyntheticSpine:
    """Two bodies without a disc between them carry one label."""
    upper = LEVELS[int(random.integers(8, 22))]
    return whole(seed, fused=upper, shifted=(upper,), shift=1)


def collapsed(seed: int, random: np.random.Generator) -> SyntheticSpine:
    """Of one vertebra two thirds are not labelled."""
    spine = whole(seed)
    own = np.nonzero(spine.labels == NUMBERS[LEVELS[int(random.integers(8, 23))]])
    upper = own[0] > np.quantile(own[0], 1 / 3)
    spine.labels[tuple(axis[upper] for axis in own)] = 0
    return replace(spine, runners_up=None)


def turned(seed: int, random: np.random.Generator, *, axes: tuple[int, ...]) -> SyntheticSpine:
    """Under a header that has the image turned by 180°: about the axes (z, y, x) that are left out."""
    del random
    spine = whole(seed)
    probabilities = np.flip(spine.probabilities, axes)
    return replace(spine, labels=np.flip(spine.labels, axes), probabilities=probabilities, runners_up=None)


def some_level(random: np.random.Generator) -> str:
    return LEVELS[int(random.integers(3, 22))]


def repeated(seed: int, random: np.random.Generator) -> SyntheticSpine:
    return whole(seed, shifted=(some_level(random),), shift=1)


def not_found(seed: int, random: np.random.Generator) -> SyntheticSpine:
    return whole(seed, missing=some_level(random))


def divided(seed: int, random: np.random.Generator) -> SyntheticSpine:
    return whole(seed, mixed=some_level(random))


ANY = ("any",)

COUNTS = {
    "thirteen thoracic levels": THIRTEEN_THORACIC,
    "eleven thoracic levels": ELEVEN_THORACIC,
    "six lumbar levels": SIX_LUMBAR,
    "four lumbar levels": FOUR_LUMBAR,
}
"""Names for the eye; the network knows none but the usual ones."""


def settings() -> Iterator[Setting]:
    for shape in SHAPES:
        yield Setting(f"clean, {shape}", partial(whole, shape=shape))
    yield Setting("clean, a part with S1", partial(part, anchored=True))
    yield Setting("clean, a part without an anchor", partial(part, anchored=False), ("numbering_uncertain",))
    yield Setting("one label on two bodies", repeated, ("label_repeated",))
    yield Setting("two fused bodies under one label", merged, ("label_repeated",))
    yield Setting("a body under two labels", divided, ("labels_mixed",))
    yield Setting("a body passed over by the numbering", passed_over, ("spacing_jump",))
    yield Setting("a body not found", not_found, ("numbering_gap",))
    for name, levels in COUNTS.items():
        yield Setting(name, partial(whole, levels=levels), ANY)
    for most in (6, 12):
        yield Setting(f"{most - 5} to {most} levels shifted by one", partial(shifted, most=most), ANY)
    yield Setting("upside down by its header", partial(turned, axes=(0, 2)), ("orientation_doubtful",))
    yield Setting("back to front by its header", partial(turned, axes=(1, 2)), ("orientation_doubtful",))
    yield Setting("two thirds of a vertebra missing", collapsed, ("volume_unusual",))
    yield Setting("twice the noise", partial(whole, noise=2.0), ("labels_mixed",))


def warnings_of(spine: SyntheticSpine) -> list[ResultWarning]:
    """What a detection would tell of its label map."""
    measured = vertebrae.measure_all(spine.label_map, spine.volume)
    found, _ = plausibility.drop_fragments(measured.vertebrae)
    return [
        *plausibility.repeated_warnings(measured.repeated),
        *doubts.find_doubts(replace(measured, vertebrae=found), spine.label_map, spine.affine_lps),
        *plausibility.plausibility_warnings(found),
    ]


def codes_of(spine: SyntheticSpine) -> set[str]:
    """Without the one that a cut field of view is right to have."""
    return {str(warning.code) for warning in warnings_of(spine)} - {"touching_border"}


def told(setting: Setting, seeds: range) -> tuple[Mapping[str, float], float]:
    """Of each code how often it was told, and how often what was expected, or anything at all; in percent."""
    counts: Counter[str] = Counter()
    caught = 0
    for seed in seeds:
        codes = codes_of(setting.draw(seed, np.random.default_rng(seed)))
        counts.update(codes)
        caught += bool(codes if setting.expected == ANY else codes & {*setting.expected})
    return {code: 100 * count / len(seeds) for code, count in counts.most_common()}, 100 * caught / len(seeds)


def rules_ms() -> tuple[tuple[int, ...], float]:
    """The size (z, y, x) of the label map of a spine from T6 on at 1.5 mm, and the time on one core for all rules."""
    spine = draw(Settings(0, levels=LEVELS[12:], spacing_mm=1.5))
    measured = vertebrae.measure_all(spine.label_map, spine.volume)
    times = []
    for _ in range(9):
        began_s = process_time()
        doubts.find_doubts(measured, spine.label_map, spine.affine_lps)
        times.append(process_time() - began_s)
    return spine.labels.shape, 1000 * median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spines", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    arguments = parser.parse_args()
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.spines)
    sys.stdout.write("| spines | should be told | was, % | codes that were told, % |\n|---|---|---|---|\n")
    for setting in settings():
        rates, caught = told(setting, seeds)
        codes = ", ".join(
            f"`{code}` {rate:.0f}" if rate >= 1 else f"`{code}` {rate:.1f}" for code, rate in rates.items()
        )
        wanted = " or ".join(f"`{code}`" if code != "any" else code for code in setting.expected)
        figure = f"{caught:.1f}" if setting.expected else ""
        sys.stdout.write(f"| {setting.name} | {wanted or 'nothing'} | {figure} | {codes or '–'} |\n")
        sys.stdout.flush()
    (z, y, x), milliseconds = rules_ms()
    sys.stdout.write(f"\nAll rules on {x} × {y} × {z} samples: {milliseconds:.0f} ms.\n")


if __name__ == "__main__":
    main()
