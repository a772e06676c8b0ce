"""Kill, hang up on and cancel rehearsals in every stage, at moments drawn from a seed; by hand.

    python tests/kill_matrix.py --seed 1 --rounds 5 --stages snapshot,transfer --root DIRECTORY

After each: once the lease has run out nothing burdens the source, and one sweep leaves nothing.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from deployments import lab
from deployments.lab.places import Places
from tests import servers
from tests.flows.conftest import World
from tests.flows.test_killed import OF_A_FRESH_SET, STAGES, settled

ENDS = ("kill -9", "SIGHUP", "cancel")
"""cancel: SIGTERM, and SIGKILL after 30 s, as Prefect's workers do."""
GRACE_SECONDS = 30.0
SPARE_SECONDS = 15.0
"""How much longer than the lease a busy machine may take to notice."""
FRESH = (*OF_A_FRESH_SET, "preflight", "declare")


@dataclass(frozen=True)
class Cell:
    """One rehearsal that is ended, and when: seconds after a stage has begun."""

    stage: str
    end: str
    delay: float


@dataclass(frozen=True)
class Result:
    """What one cell has come to."""

    cell: Cell
    code: int
    freed: float
    burdens: list[str]
    swept: str
    left: list[str]

    @property
    def passed(self) -> bool:
        return not self.burdens and not self.left and not self.swept

    def __str__(self) -> str:
        problems = "; ".join([*self.burdens, *([self.swept] if self.swept else []), *self.left])
        return (
            f"{self.cell.stage:10} {self.cell.end:8} {self.cell.delay:5.2f} s  exit {self.code:4}  "
            f"freed after {self.freed:5.1f} s  {'ok' if self.passed else f'FAILED: {problems}'}"
        )


def cells(seed: int, rounds: int, stages: tuple[str, ...], most: float) -> Iterator[Cell]:
    """All of them, in order; moments crowd at a stage's beginning, where most is made."""
    drawn = random.Random(seed)
    for _ in range(rounds):
        for stage in stages:
            for end in ENDS:
                yield Cell(stage, end, round(most * drawn.random() ** 2, 2))


def ended(world: World, cell: Cell) -> int:
    """Run a rehearsal, end it; its exit code."""
    select = "fresh" if cell.stage in FRESH else "latest"
    words = ["--select", select, "--rpo", "24h", "--rto", "1h"]
    if cell.stage == "transfer":
        words += ["--wan", "500kB/s"]
    running = world.start(str(world.plan()), *words)
    running.until(f"{cell.stage}: started")
    time.sleep(cell.delay)
    if cell.end == "kill -9":
        return running.end(signal.SIGKILL).code
    number = signal.SIGHUP if cell.end == "SIGHUP" else signal.SIGTERM
    running.process.send_signal(number)
    if cell.end == "cancel":
        try:
            running.process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            running.process.kill()
    return running.end().code


def tried(world: World, cell: Cell, lease: float) -> Result:
    """Try one cell."""
    if not lab.is_up(world.places.root):
        lab.up(world.places.root)
    code, began = ended(world, cell), time.monotonic()
    burdens = world.unburdened(lease + SPARE_SECONDS)
    freed = time.monotonic() - began
    settled(world)
    swept = world.sweep()
    return Result(
        cell, code, freed, burdens, "" if swept.code == 0 else swept.text[:500], world.left()
    )


def main() -> int:
    """Exit code 1 if any cell failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--lease", type=float, default=6.0)
    parser.add_argument("--most", type=float, default=6.0, help="latest moment, in seconds")
    parser.add_argument("--root", type=Path, default=Path("/var/tmp/farside-lab-kills"))
    given = parser.parse_args()
    print(f"seed {given.seed}, lease {given.lease:g} s", flush=True)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # or rehearsals ignore it, as under nohup
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers.begin()
    places, results = Places.at(given.root), []
    settings = {"FARSIDE_LEASE_SECONDS": str(given.lease)}
    try:
        prefect = servers.PrefectServer.shared()
        lab.up(places.root, scale=1)
        with tempfile.TemporaryDirectory(prefix="farside-kills-") as folder:
            world = World(places, prefect.ready(), Path(folder), settings)
            first = world.rehearse(select="fresh")
            assert first.code == 0, first.text
            stages = tuple(given.stages.split(","))
            for cell in cells(given.seed, given.rounds, stages, given.most):
                results.append(tried(world, cell, given.lease))
                print(results[-1], flush=True)
    finally:
        lab.down(places.root)
        servers.end()
    failed = sum(not result.passed for result in results)
    print(f"{len(results)} cells, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
