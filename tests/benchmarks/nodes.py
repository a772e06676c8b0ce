"""How much longer five members take than one.

The same retained set of the lab's etcd is restored into one member and into five, by turns, in
ordinary rehearsals; the seconds are their records'. All hosts are one machine: its cores are what
members share here, and would not elsewhere.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import yaml
from prefect.testing.utilities import prefect_test_harness

from blocks.evidence.record import Record, Verdict
from deployments import lab
from deployments.lab.parts.etcd import NAME, with_members
from flows.rehearse import Watcher, rehearse, watching
from tests.benchmarks.results import Result

FEW, MANY, LIMIT = 1, 5, 1.5


def nodes(rounds: int) -> list[Result]:
    """The restore stage, and the RTA, of five members relative to one."""
    with _plans() as plans, prefect_test_harness(server_startup_timeout=180):
        _rehearsed(plans[FEW], "fresh")
        records: dict[int, list[Record]] = {FEW: [], MANY: []}
        for number in range(rounds):
            for count in (FEW, MANY) if number % 2 == 0 else (MANY, FEW):
                records[count].append(_rehearsed(plans[count], "latest"))
    restores, recoveries = (
        {count: [seconds(record) for record in found] for count, found in records.items()}
        for seconds in (_restore_seconds, _rta)
    )
    return [_result("nodes, restore", restores), _result("nodes, RTA", recoveries)]


def _result(name: str, seconds: dict[int, list[float]]) -> Result:
    few, many = median(seconds[FEW]), median(seconds[MANY])
    ratios = sorted(m / f for m, f in zip(seconds[MANY], seconds[FEW], strict=True))
    return Result(
        name=name,
        meaning=f"seconds for {MANY} etcd members relative to {FEW}; at most {LIMIT} is wanted",
        ratio=many / few,
        lowest=ratios[0],
        highest=ratios[-1],
        farside=f"{many:.2f} s",
        reference=f"{few:.2f} s",
        details={"seconds": seconds},
    )


def _restore_seconds(record: Record) -> float:
    seconds = next(stage.seconds for stage in record.stages if stage.name == "restore")
    assert seconds is not None
    return seconds


def _rta(record: Record) -> float:
    assert record.rta_seconds is not None
    return record.rta_seconds


def _rehearsed(plan: Path, select: str) -> Record:
    with watching(Watcher()) as watcher:
        results = str(plan.parent / "records")
        rehearse(plan=str(plan), select=select, results=results, return_state=True)
    record = watcher.record
    if record is None or record.verdict is not Verdict.VERIFIED:
        raise RuntimeError(f"not verified: {record and [i.evidence for i in record.findings]}")
    return record


@contextmanager
def _plans() -> Iterator[dict[int, Path]]:
    """A plan for each number of members, in a lab of their own."""
    folder = Path(tempfile.mkdtemp(prefix="farside-benchmarks-"))
    folder.chmod(0o755)  # as root the lab's services run as another account
    try:
        lab.up(folder / "lab", scale=1, parts=[NAME])
        document = yaml.safe_load(lab.plan_path(folder / "lab", "etcd").read_text())
        document["objectives"] = {"rto": "1h", "rpo": "24h"}
        plans = {count: folder / f"{count}.yaml" for count in (FEW, MANY)}
        for count, path in plans.items():
            path.write_text(yaml.safe_dump(with_members(document, count)))
        yield plans
    finally:
        lab.down(folder / "lab")
        shutil.rmtree(folder)
