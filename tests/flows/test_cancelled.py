"""A rehearsal of a deployment, run by a worker, that is cancelled from Prefect."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import UUID

import httpx
import pytest

from blocks.evidence.record import Verdict
from tests import mechanisms
from tests.flows.conftest import CHECKOUT, PATIENCE, World, newest_record
from tests.flows.test_killed import settled

pytestmark = [pytest.mark.slow(90), mechanisms.ENDED]
POOL = "rehearsals"
GRACE_SECONDS = 30.0
"""What Prefect gives a run that it cancels, before it kills it."""


class Prefect:
    """Prefect's API, as its UI calls it."""

    def __init__(self, api: str) -> None:
        self._client = httpx.Client(base_url=api, timeout=60)

    def call(self, path: str, **body: Any) -> Any:
        answer = self._client.post(path, json=body)
        while answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # SQLite is busy
            time.sleep(0.5)
            answer = self._client.post(path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def has_pool(self) -> bool:
        """Whether the worker has made the pool that it works on."""
        return self._client.get(f"/work_pools/{POOL}").is_success

    def state(self, run: UUID) -> str:
        answer = self._client.get(f"/flow_runs/{run}")
        answer.raise_for_status()
        state: str = answer.json()["state_type"]
        return state

    def stages(self, run: UUID) -> set[str]:
        """The stages that run or have run."""
        wanted = {"flow_runs": {"id": {"any_": [str(run)]}}}
        found = self.call("/task_runs/filter", **wanted)
        begun = [item for item in found if item["state_type"] not in ("PENDING", "SCHEDULED")]
        return {item["name"].rpartition(": ")[2] for item in begun}


def until(done: Any, seconds: float) -> float:
    """Wait; how long it took."""
    began = time.monotonic()
    while not done():
        assert time.monotonic() - began < seconds, "it never came"
        time.sleep(0.1)
    return time.monotonic() - began


@contextmanager
def worker(world: World) -> Iterator[None]:
    """`prefect worker start`, as docs/prefect.md says."""
    words = ("worker", "start", "--pool", POOL, "--type", "process")
    with (world.folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            cwd=CHECKOUT,
            env=world.environment() | {"PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def deployed(prefect: Prefect, world: World, select: str) -> UUID:
    """A run of a deployment of the plan, scheduled now."""
    flow = prefect.call("/flows/", name="rehearse")
    deployment = prefect.call(
        "/deployments/",
        name=f"cancelled-{select}",
        flow_id=flow["id"],
        entrypoint="flows.rehearse.rehearse",
        work_pool_name=POOL,
        job_variables={"working_dir": str(CHECKOUT)},
    )
    parameters = {
        "plan": str(world.plan()),
        "select": select,
        "rpo": "24h",
        "rto": "1h",
        "results": str(world.results),
    }
    path = f"/deployments/{deployment['id']}/create_flow_run"
    return UUID(prefect.call(path, parameters=parameters)["id"])


@pytest.mark.parametrize(
    ("stage", "select"),
    [("snapshot", "fresh"), ("restore", "latest")],
)
def test_cancelled_from_prefect(world: World, stage: str, select: str) -> None:
    prefect = Prefect(world.api)
    with worker(world):
        until(prefect.has_pool, PATIENCE)
        run = deployed(prefect, world, select)
        until(lambda: stage in prefect.stages(run), PATIENCE)
        time.sleep(0.3)  # into the stage's work
        prefect.call(f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
        until(lambda: newest_record(world.results), GRACE_SECONDS)
        until(lambda: prefect.state(run) == "CANCELLED", PATIENCE)
    assert world.unburdened(GRACE_SECONDS) == []
    settled(world)
    assert world.sweep().code == 0
    record = newest_record(world.results)
    assert record is not None
    assert record.verdict is Verdict.COULD_NOT_VERIFY
    assert world.left() == []
