"""What many tests try in one way, each of them a rehearsal: `--draw` runs a sample of each.

Which, the seed decides. So no test is left out for good, and `.ci/run` ends within minutes.
`pytest -m slow` runs them all.
"""

import pytest

BROKEN = pytest.mark.mechanism("broken", draw=2)
"""A site that is broken, in the loopback lab."""
KILLED = pytest.mark.mechanism("killed", draw=3)
"""The orchestrator, or what works for it, dies or hangs."""
ENDED = pytest.mark.mechanism("ended", draw=3)
"""The orchestrator is told to end, or loses what it writes to."""
APART = pytest.mark.mechanism("apart", draw=3)
"""Hosts with networks of their own: other engines, hosts and links that fail."""
README = pytest.mark.mechanism("readme", draw=2)
"""What README shows beside its everyday commands."""
BENCHMARKS = pytest.mark.mechanism("benchmarks")
"""Every benchmark, on small data."""


def board(plan: str) -> pytest.MarkDecorator:
    """A part of a board of drills."""
    return pytest.mark.mechanism(f"drills of {plan}")
