"""Read and write amounts the way Kubernetes does: "10Gi", "500Mi", "1e9", "5k".

The grammar is that of `k8s.io/apimachinery/pkg/api/resource.Quantity`, less the sign: digits with at most one point,
then a suffix or a decimal exponent. Every amount here is a whole number of bytes or of I/Os, at most 2**63 - 1.
"""

from __future__ import annotations

import re
from fractions import Fraction
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST: Final = 2**63 - 1

_DECIMAL: Final[Mapping[str, Fraction]] = MappingProxyType(
    {
        "n": Fraction(1, 10**9),
        "u": Fraction(1, 10**6),
        "m": Fraction(1, 10**3),
        "": Fraction(1),
        "k": Fraction(10**3),
        "M": Fraction(10**6),
        "G": Fraction(10**9),
        "T": Fraction(10**12),
        "P": Fraction(10**15),
        "E": Fraction(10**18),
    }
)
_BINARY: Final[Mapping[str, Fraction]] = MappingProxyType(
    {unit: Fraction(1024**power) for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)}
)
_BYTE_UNITS: Final[Mapping[str, Fraction]] = MappingProxyType({**_DECIMAL, **_BINARY})

# [0-9] and not \d, which takes digits of every script. Two digits of exponent: "1e999999999" must not become a number
# of a gigabyte. The exponent stands before the suffix so that "1E3" is a thousand and "1E" an exa, as in Kubernetes.
_QUANTITY: Final = re.compile(
    r"(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE](?P<exponent>[+-]?[0-9]{1,2})|(?P<unit>[A-Za-z]{0,2}))"
)
_LONGEST: Final = 64  # characters: a quantity that needs more is a mistake or an attack


def quoted(text: str) -> str:
    """Return a text as messages show it: in quotes, on one line, cut after 64 characters."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}..."


class BadQuantity(ValueError):
    """Say that a text is no amount. The message quotes the text and says what would do."""


def _exact(text: str, units: Mapping[str, Fraction], example: str) -> Fraction:
    """Return the exact value of `text` in the given units; it may have a fraction and has no upper bound."""
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise BadQuantity(f"{quoted(text)} is not an amount: write a number and a unit, such as {example}")
    unit = match["unit"] or ""
    if unit not in units:
        known = ", ".join(name for name in units if name and name not in {"n", "u", "m"})
        raise BadQuantity(f"{text!r} has the unknown unit {unit!r}: use one of {known}, such as {example}")
    # Fraction takes "1." and ".5" only with a digit on both sides.
    whole, _, part = match["number"].partition(".")
    return Fraction(f"{whole or 0}.{part or 0}") * units[unit] * Fraction(10) ** int(match["exponent"] or 0)


def _whole(text: str, units: Mapping[str, Fraction], example: str) -> int:
    """Return the value of `text`, which must be whole and at most 2**63 - 1."""
    value = _exact(text, units, example)
    if value.denominator != 1:
        raise BadQuantity(f"{text!r} is not a whole number: it comes to {float(value):g}")
    if value > MOST:
        raise BadQuantity(f"{text!r} is more than {MOST}")
    return int(value)


def parse_bytes(text: str) -> int:
    """Return the bytes that `text` says: "10Gi", "500Mi", "1.5Gi", "1e9", "8388608", "50M".

    Raises BadQuantity, naming the text, for a sign, a fraction of a byte, an unknown unit or more than 2**63 - 1.
    """
    return _whole(text, _BYTE_UNITS, '"10Gi" or "500M"')


def parse_count(text: str) -> int:
    """Return the number that `text` says: "500", "5k", "1.5k", where k is 1000. Binary units are for bytes.

    Raises BadQuantity, naming the text, as `parse_bytes` does.
    """
    return _whole(text, _DECIMAL, '"500" or "5k"')


def exact_bytes(text: str) -> Fraction:
    """Return bytes that need not be whole, such as the 0.5 of "0.5 bytes/s per GiB". Raises BadQuantity."""
    return _exact(text, _BYTE_UNITS, '"1Mi" or "500k"')


def exact_count(text: str) -> Fraction:
    """Return a number that need not be whole, such as the 1.5 of "1.5 IOPS per GiB". Raises BadQuantity."""
    return _exact(text, _DECIMAL, '"3" or "1.5"')


def _format(n: int, units: Mapping[str, Fraction]) -> str:
    """Return `n` in the largest unit that divides it, else as a plain number."""
    if n < 0:
        raise ValueError(f"{n} is less than nothing: an amount has no sign")
    for unit, size in reversed(list(units.items())):
        if size > 1 and n >= size and n % int(size) == 0:
            return f"{n // int(size)}{unit}"
    return str(n)


def format_bytes(n: int) -> str:
    """Return bytes in the largest binary unit that is exact ("10Gi"), else in bytes ("1000000001").

    The result goes back through `parse_bytes` unchanged. Raises ValueError for a negative number.
    """
    return _format(n, _BINARY)


def format_count(n: int) -> str:
    """Return a number in the largest decimal unit that is exact ("5k"), else plain ("5432").

    The result goes back through `parse_count` unchanged. Raises ValueError for a negative number.
    """
    return _format(n, _DECIMAL)
