"""The benchmarks work: each yields a ratio. What it is says nothing at this size."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from blocks.errors import PermanentError
from deployments.lab import namespaces

ROOT = Path(__file__).parents[2]
NAMES = {
    "snapshot",
    "transfer",
    "transfer, tuned",
    "restore",
    "memory, seal",
    "memory, copy",
    "memory, open",
    "rehearsal",
    "rehearsal, own",
    "nodes, restore",
    "nodes, RTA",
}


def possible() -> set[str]:
    """Without the one that needs network namespaces, where those cannot be had."""
    try:
        namespaces.check()
    except PermanentError:
        return NAMES
    return NAMES | {"wan"}


@pytest.mark.slow(120)
@pytest.mark.timeout(900)
def test_every_benchmark_yields_a_ratio(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.run",
        "--size=4MB",
        "--rounds=1",
        "--scale=1",
    ]
    done = subprocess.run(
        [*command, f"--results={results}"], cwd=ROOT, capture_output=True, text=True, timeout=800
    )
    assert done.returncode == 0, done.stderr
    found = {
        result["name"]: result["ratio"] for result in json.loads(results.read_text())["results"]
    }
    assert found.keys() == possible()
    assert all(ratio > 0 for ratio in found.values())
