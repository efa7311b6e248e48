"""A label map becomes what is told of it: its vertebrae, how sure their levels are, and every doubt.

Knows the order of these; what a vertebra, a doubt or a level's evidence is, the others of this room know.
"""

from dataclasses import dataclass, replace

from openscans.segmentation import doubts, evidence, plausibility, vertebrae
from openscans.segmentation.vertebrae import LabelMap
from openscans.types import ResultWarning, Vertebra
from openscans.volumes import Volume


@dataclass(frozen=True)
class Findings:
    """The vertebrae from head to foot, and what a reader of them should know."""

    vertebrae: tuple[Vertebra, ...]
    warnings: tuple[ResultWarning, ...]


NOTHING = Findings((), tuple(plausibility.plausibility_warnings([])))
"""Where no spine was found, and nothing was labelled."""


def read_findings(label_map: LabelMap, volume: Volume) -> Findings:
    """What ``label_map`` over ``volume`` shows."""
    measured = vertebrae.measure_all(label_map, volume)
    whole, fragments = plausibility.drop_fragments(measured.vertebrae)
    found, differs = evidence.weigh_levels(whole, measured, label_map, volume.affine_lps)
    warnings = [
        *fragments,
        *plausibility.repeated_warnings(measured.repeated),
        *differs,
        *doubts.find_doubts(replace(measured, vertebrae=found), label_map, volume.affine_lps),
        *plausibility.plausibility_warnings(found),
    ]
    return Findings(tuple(found), tuple(warnings))
