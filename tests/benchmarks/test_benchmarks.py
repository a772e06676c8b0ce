"""The benchmarks work: each yields a ratio. What it is says nothing at this size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.errors import PermanentError
from deployments.lab import namespaces
from tests import mechanisms

ROOT = Path(__file__).parents[2]
MOVING = {
    "snapshot": {"snapshot"},
    "transfer": {"transfer", "transfer, tuned"},
    "restore": {"restore"},
    "memory": {"memory, seal", "memory, copy", "memory, open"},
}
"""Names that the command takes, and the results of each."""
WHOLE = {
    "rehearsal": {"rehearsal", "rehearsal, own"},
    "nodes": {"nodes, restore", "nodes, RTA"},
}
"""Those of whole rehearsals."""


def possible() -> dict[str, set[str]]:
    """Without the one that needs network namespaces, where those cannot be had."""
    try:
        namespaces.check()
    except PermanentError:
        return MOVING
    return MOVING | {"wan": {"wan"}}


@mechanisms.BENCHMARKS
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "benchmarks",
    [
        pytest.param(possible(), id="moving", marks=pytest.mark.slow(60)),
        *(
            pytest.param({name: results}, id=name, marks=pytest.mark.slow(120))
            for name, results in WHOLE.items()
        ),
    ],
)
def test_every_benchmark_yields_a_ratio(tmp_path: Path, benchmarks: dict[str, set[str]]) -> None:
    results = tmp_path / "results.json"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.run",
        "--size=4MB",
        "--rounds=1",
        "--scale=1",
        *benchmarks,
    ]
    done = subprocess.run(
        [*command, f"--results={results}"], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    found = {
        result["name"]: result["ratio"] for result in json.loads(results.read_text())["results"]
    }
    assert found.keys() == set().union(*benchmarks.values())
    assert all(ratio > 0 for ratio in found.values())
