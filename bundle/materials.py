"""The bill of materials that lies beside the executable: CycloneDX, for programs that look for known holes."""

from collections.abc import Iterable

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from bundle.parts import Part


def bill(program: str, version: str, parts: Iterable[Part]) -> str:
    """JSON that names the program and every part of it with its version and licence."""
    bom = Bom()
    licences = LicenseFactory()
    bom.metadata.component = Component(name=program, version=version, type=ComponentType.APPLICATION)
    for part in parts:
        component = Component(
            name=part.name,
            version=part.version or None,
            description=f"inside {part.inside}" if part.inside else None,
            licenses=[licences.make_from_string(part.licence)],
            purl=PackageURL.from_string(part.purl) if part.purl else None,
        )
        bom.components.add(component)
        bom.register_dependency(bom.metadata.component, [component])
    return str(JsonV1Dot6(bom).output_as_string(indent=2))
