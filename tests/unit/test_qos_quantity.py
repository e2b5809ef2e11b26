"""Amounts as Kubernetes writes them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qos.quantity import MOST, BadQuantity, format_bytes, format_count, parse_bytes, parse_count

# Not st.text: it first draws up a table of all of Unicode, which takes longer than Hypothesis allows on a slow machine.
texts = st.lists(st.sampled_from(string.printable + "\u0663\u00b2"), max_size=80)
amounts = st.one_of(
    st.integers(0, MOST),
    # Round numbers, which chance alone never meets.
    st.builds(lambda n, power: min(n * 1024**power, MOST), st.integers(0, 2000), st.integers(0, 6)),
    st.builds(lambda n, power: min(n * 1000**power, MOST), st.integers(0, 2000), st.integers(0, 6)),
)


@given(amounts)
def test_bytes_come_back_as_they_were_written(n: int) -> None:
    """Whatever format_bytes writes, parse_bytes reads as the same number."""
    assert n == parse_bytes(format_bytes(n))


@given(amounts)
def test_counts_come_back_as_they_were_written(n: int) -> None:
    """Whatever format_count writes, parse_count reads as the same number."""
    assert n == parse_count(format_count(n))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("8388608", 8388608),
        ("10Gi", 10 * 2**30),
        ("500Mi", 500 * 2**20),
        ("1.5Gi", 3 * 2**29),
        (".5Ki", 512),
        ("1.Ki", 1024),
        ("1e9", 10**9),
        ("1e+3", 1000),
        ("1.5e1", 15),
        ("1000e-3", 1),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("50M", 50 * 10**6),
        ("5k", 5000),
        ("128974848000m", 128974848),
        ("9223372036854775807", MOST),
    ],
)
def test_bytes_follow_the_grammar_of_kubernetes(text: str, expected: int) -> None:
    """Each form in the documentation of resource.Quantity has its value."""
    assert expected == parse_bytes(text)


@pytest.mark.parametrize(("text", "expected"), [("500", 500), ("5k", 5000), ("1.5k", 1500), ("2M", 2 * 10**6)])
def test_counts_take_thousands(text: str, expected: int) -> None:
    """A k is 1000, not 1024."""
    assert expected == parse_count(text)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "Gi",
            ".",
            "-1",
            "+1",
            "1 Gi",
            " 1",
            "1\n",
            "nan",
            "inf",
            "1e",
            "1e1000000000",
            "1Gi5",
            "1,5",
            "0x10",
        ),
        *("5K", "1gi", "1KI", "1_000", "\u0663", "1.5", "1m", "1e-1", "9223372036854775808", "8Ei", "1e20", "9" * 200),
    ],
)
def test_what_is_no_amount_is_refused_by_name(text: str) -> None:
    """The message quotes what was written, at least its beginning."""
    with pytest.raises(BadQuantity) as caught:
        parse_bytes(text)

    assert repr(text[:64])[:-1] in str(caught.value)


@pytest.mark.parametrize("text", ["1Ki", "1.5", "5kk"])
def test_counts_have_no_binary_units_and_no_fractions(text: str) -> None:
    """Nobody means 1024 I/Os."""
    with pytest.raises(BadQuantity):
        parse_count(text)


@given(texts.map("".join))
def test_any_text_is_an_amount_or_a_bad_quantity(text: str) -> None:
    """No text makes the parser fail in another way, or pass its bounds."""
    try:
        value = parse_bytes(text)
    except BadQuantity:
        return

    assert 0 <= value <= MOST


@pytest.mark.parametrize(
    ("n", "expected"), [(10 * 2**30, "10Gi"), (1536 * 2**20, "1536Mi"), (1000, "1000"), (0, "0"), (2**60, "1Ei")]
)
def test_bytes_are_written_in_the_largest_exact_unit(n: int, expected: str) -> None:
    """A person reads 10Gi, not 10737418240."""
    assert expected == format_bytes(n)


@pytest.mark.parametrize(("n", "expected"), [(5000, "5k"), (5432, "5432"), (16_000_000, "16M"), (0, "0")])
def test_counts_are_written_in_the_largest_exact_unit(n: int, expected: str) -> None:
    """A person reads 5k."""
    assert expected == format_count(n)


def test_a_negative_amount_is_not_written() -> None:
    """It could not be read back."""
    with pytest.raises(ValueError, match="-1"):
        format_bytes(-1)
