"""What many tests try in one way, for minutes: `--draw` runs a sample of each.

Which, the seed decides. So no test is left out for good, and `.ci/run` ends within minutes.
`pytest -m slow` runs them all.
"""

import pytest

BROKEN = pytest.mark.mechanism("broken", draw=2)
"""A site that is broken, in the loopback lab."""
KILLED = pytest.mark.mechanism("killed", draw=2)
"""The orchestrator, or what works for it, dies or hangs."""
ENDED = pytest.mark.mechanism("ended", draw=2)
"""The orchestrator is told to end, or loses what it writes to."""
APART = pytest.mark.mechanism("apart", draw=2)
"""Hosts with networks of their own: other engines, hosts and links that fail."""
WHOLE = pytest.mark.mechanism("whole", draw=2)
"""Rehearsals that nothing disturbs, looked at from one side each."""
DRILLS = pytest.mark.mechanism("drills", draw=2)
"""A part of a board of drills."""
README = pytest.mark.mechanism("readme")
"""What README and docs show."""
NODES = pytest.mark.mechanism("nodes")
"""A member or a host of a restored etcd cluster that dies or comes back."""
CLUSTERS = pytest.mark.mechanism("clusters", per=pytest.Class)
"""Everything that an engine must do, with another version or number of nodes than README's test."""
SOURCES = pytest.mark.mechanism("sources")
"""A PostgreSQL source that is not the usual one."""
SERVERS = pytest.mark.mechanism("servers", per=pytest.Module)
"""All that is looked at on small servers of PostgreSQL, of two versions."""
BENCHMARKS = pytest.mark.mechanism("benchmarks")
"""Every benchmark, on small data."""
