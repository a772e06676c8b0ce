"""Quantities as people read them."""

import pytest

from tasks.reporting.units import duration, rate, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (9_995_000, "10.0 MB"),
        (24_700_000, "24.7 MB"),
        (151_000_000, "151 MB"),
        (2_130_000_000, "2.13 GB"),
        (5e18, "5000 PB"),
    ],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.42, "0.42 s"),
        (0.996, "1.0 s"),
        (75, "75.0 s"),
        (119.96, "2 min 00 s"),
        (725, "12 min 05 s"),
        (3599.6, "1 h 00 min"),
        (11_220, "3 h 07 min"),
        (-3, "-3.0 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_rate_needs_both() -> None:
    assert rate(171_000_000, 6.5) == "26.3 MB/s"
    assert rate(None, 6.5) == rate(5, None) == rate(5, 0.0) == ""
