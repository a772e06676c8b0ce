"""Farside beside the commands that do the same: how fast, and with how much memory.

    python -m tests.benchmarks.run [--size 1GB] [--rounds 3] [NAME ...]

Names: snapshot, restore, transfer, memory, rehearsal, nodes, wan (as root: the lab of namespaces);
none is all. Prints a table and writes all numbers as JSON. Brings up labs of its own and removes
them. Ratios above 1 say that farside is faster, but for `nodes`; on a machine that does something
else as well, only those of many rounds mean much.
"""

import json
import platform
import re
import signal
import sys
from datetime import UTC, datetime
from os import cpu_count, getloadavg
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from blocks.errors import PermanentError
from deployments.lab import namespaces
from tests.benchmarks import moving
from tests.benchmarks.nodes import nodes
from tests.benchmarks.rehearsal import rehearsal
from tests.benchmarks.results import Result, table
from tests.benchmarks.world import world

MOVING = ("snapshot", "transfer", "restore", "memory")
NAMES = (*MOVING, "rehearsal", "nodes", "wan")
_UNITS = {"MB": 10**6, "GB": 10**9}


def size_of(text: str) -> int:
    """Bytes of `1GB`, `20MB`."""
    match = re.fullmatch(r"(\d+)\s*(MB|GB)", text)
    if match is None:
        raise typer.BadParameter("expected such as 20MB or 1GB")
    return int(match[1]) * _UNITS[match[2]]


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(NAMES)}; none is all.")
    ] = None,
    size: Annotated[str, typer.Option(help="Size of the database.")] = "1GB",
    rounds: Annotated[int, typer.Option(min=1, help="How often each side runs.")] = 3,
    scale: Annotated[int, typer.Option(min=1, help="pgbench's, in the rehearsal.")] = 10,
    results: Annotated[Path, typer.Option(help="Where to write the JSON.")] = Path(
        "build/benchmarks.json"
    ),
) -> None:
    """Measure farside beside the commands that do the same."""
    if unknown := set(names or ()) - set(NAMES):
        raise typer.BadParameter(f"no benchmark {', '.join(sorted(unknown))}")
    # What a time limit sends: the labs are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    measured = _measure(set(names or _possible()), size_of(size), rounds, scale)
    Console(width=160).print(table(measured))
    document = {
        "at": datetime.now(UTC).isoformat(),
        "machine": {
            "cores": cpu_count(),
            "load": getloadavg(),
            "python": platform.python_version(),
        },
        "size": size,
        "rounds": rounds,
        "results": [result.to_json() for result in measured],
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(document, indent=2) + "\n")
    typer.echo(f"all numbers: {results}")


def _possible() -> set[str]:
    """All benchmarks, without the one that needs namespaces where those cannot be had."""
    try:
        namespaces.check()
    except PermanentError as error:
        typer.echo(f"without wan: {error}", err=True)
        return set(NAMES) - {"wan"}
    return set(NAMES)


def _measure(wanted: set[str], size: int, rounds: int, scale: int) -> list[Result]:
    measured: list[Result] = []
    if wanted & set(MOVING):
        with world(size) as place:
            if wanted & {"snapshot", "transfer", "restore"}:
                # What is copied and restored is what was sealed.
                result, sealed = moving.snapshot(place, rounds if "snapshot" in wanted else 1)
                measured += [result] if "snapshot" in wanted else []
                if "transfer" in wanted:
                    measured += moving.transfer(place, rounds, sealed)
                if "restore" in wanted:
                    moving.copy(place, sealed)
                    measured.append(moving.restore(place, rounds, sealed))
            if "memory" in wanted:
                measured += moving.memory(place, size)
    if "wan" in wanted:
        with world(size // 2, "netns") as place:
            measured.append(moving.wan(place, rounds))
    if "rehearsal" in wanted:
        measured += rehearsal(rounds, scale)
    if "nodes" in wanted:
        measured += nodes(rounds)
    return measured


if __name__ == "__main__":
    typer.run(main)
