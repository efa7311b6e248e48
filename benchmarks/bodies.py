"""How far `body` is from the phantoms' own bodies, by region, shape and distance of samples.

    python -m benchmarks.bodies [--spines 8]

Labels are the true ones. Writes Markdown.
"""

import argparse
import sys
from collections import defaultdict

import numpy as np

from tests.segmentation.test_bodies import SHAPES, label_map, measured, off_mm

FIRST_SEED = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spines", type=int, default=8)
    spines = parser.parse_args().spines
    sys.stdout.write("| samples | spine | region | mean, mm | worst, mm | bodies | of centres of mass, mean |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for sample_mm in (1.5, 3.0):
        for name, make in SHAPES.items():
            off: dict[str, list[float]] = defaultdict(list)
            mass: dict[str, list[float]] = defaultdict(list)
            for seed in range(FIRST_SEED, FIRST_SEED + spines):
                phantom = make(seed)
                found = measured(*label_map(phantom, sample_mm))
                true = {level.name: level.center_mm for level in phantom.levels}
                for vertebra in found:
                    place = vertebra.center_mm
                    away = np.linalg.norm(true[vertebra.label] - (place.x, place.y, place.z))
                    mass[vertebra.label[0]].append(float(away))
                for label, distance_mm in off_mm(found, phantom):
                    off[label[0]].append(distance_mm)
            for region, distances in off.items():
                figures = (
                    f"{np.mean(distances):.2f} | {max(distances):.2f} | {len(distances)} | {np.mean(mass[region]):.1f}"
                )
                sys.stdout.write(f"| {sample_mm} mm | {name} | {region} | {figures} |\n")


if __name__ == "__main__":
    main()
