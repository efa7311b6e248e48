"""Which licences may be bundled, and the text file that tells all of them.

The LGPL is allowed, because a library lies in a file of its own that can be replaced; the GPL and AGPL are not, unless
an exception frees what is built with them.
"""

from collections.abc import Iterable, Sequence

from boolean import Expression
from license_expression import (
    ExpressionError,
    LicenseSymbol,
    LicenseWithExceptionSymbol,
    get_spdx_licensing,
)

from bundle.parts import Part, UnknownPart

COPYLEFT = ("GPL-", "AGPL-")

FREEING = {"GCC-exception-3.1", "Bootloader-exception"}
"""Exceptions that let a program of any licence hold the compiled library."""

OWN_NAME = "LicenseRef-"
"""How SPDX names licences that are not in its list."""

RULE = "=" * 100


class ForbiddenLicence(Exception):
    """A part whose licence would extend to the whole executable."""


def check(parts: Iterable[Part]) -> None:
    """Raises ForbiddenLicence where a part is under the GPL alone, UnknownPart where its licence is no known one."""
    for part in parts:
        try:
            allowed = is_allowed(part.licence)
        except UnknownPart as error:
            raise UnknownPart(f"{part.name}: {error}") from error
        if not allowed:
            raise ForbiddenLicence(f"{part.name} is under {part.licence}, which may not be bundled.")


def is_allowed(licence: str) -> bool:
    """Whether ``licence``, an SPDX expression, offers terms without the GPL. Raises UnknownPart where it is none."""
    licensing = get_spdx_licensing()
    try:
        expression = licensing.parse(licence)
    except ExpressionError as error:
        raise UnknownPart(f"{licence!r} is no licence that is known.") from error
    unknown = [key for key in licensing.unknown_license_keys(expression) if not key.startswith(OWN_NAME)]
    if expression is None or unknown:
        raise UnknownPart(f"{licence!r} is no licence that is known.")
    return _offers(expression)


def _offers(expression: Expression) -> bool:
    if isinstance(expression, LicenseWithExceptionSymbol):
        return _offers(expression.license_symbol) or expression.exception_symbol.key in FREEING
    if isinstance(expression, LicenseSymbol):
        return not expression.key.startswith(COPYLEFT)
    offers = [_offers(part) for part in expression.args]
    return any(offers) if expression.operator.strip() == "OR" else all(offers)


def _origin(part: Part) -> str:
    return f"in {part.inside}" if part.inside else part.version


def licences_text(program: str, parts: Sequence[Part]) -> str:
    """What the file THIRD_PARTY_LICENSES.txt says: a list of all ``parts``, then every text once."""
    width = max(len(part.name) for part in parts)
    lines = [f"{program} is under the Apache License 2.0 (LICENSE). It comes with the parts below."]
    lines += ["What is under the LGPL lies in files of its own, which may be replaced by other versions.", ""]
    lines += [f"{part.name:{width}}  {part.licence}  {_origin(part)}".rstrip() for part in parts]
    owners: dict[str, list[str]] = {}
    for part in parts:
        for text in part.texts:
            owners.setdefault(text.strip(), []).append(part.name)
    for text, names in owners.items():
        lines += ["", RULE, ", ".join(names), RULE, "", text]
    return "\n".join(lines) + "\n"
