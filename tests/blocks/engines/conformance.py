"""The suite that every engine passes: a subclass names the plan, and gets all of it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.testing.utilities import prefect_test_harness

from blocks.evidence.record import CheckStatus, Record, Verdict
from blocks.helper import sweep_host
from blocks.plan import Plan, load_plan
from deployments import lab
from flows.rehearse import Watcher, rehearse, watching


class EngineConformance:
    """Give `plan_name`, a plan of the lab."""

    plan_name: str

    @pytest.fixture(scope="class")
    def plan_path(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
        root = tmp_path_factory.mktemp("lab") / "lab"
        os.environ["FARSIDE_LAB"] = str(root)
        lab.up(root, scale=1)
        try:
            yield lab.plan_path(root, self.plan_name)
        finally:
            lab.down(root)
            del os.environ["FARSIDE_LAB"]

    @pytest.fixture
    def plan(self, plan_path: Path) -> Iterator[Plan]:
        loaded = load_plan(plan_path)
        yield loaded
        loaded.source.close()
        loaded.recovery.close()

    @pytest.fixture(scope="class")
    def rehearsed(
        self, plan_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Record]:
        results = tmp_path_factory.mktemp("rehearsals")
        with prefect_test_harness(server_startup_timeout=120), watching(Watcher()) as watcher:
            rehearse(plan=str(plan_path), results=str(results), return_state=True)
        assert watcher.record is not None
        yield watcher.record

    def test_rehearsal_is_verified(self, rehearsed: Record) -> None:
        assert rehearsed.findings == ()
        assert [c for c in rehearsed.checks if c.status is not CheckStatus.PASSED] == []
        assert rehearsed.verdict is Verdict.VERIFIED
        assert rehearsed.rta_seconds is not None
        assert rehearsed.rta_seconds > 0
        assert rehearsed.rpa_seconds is not None
        assert rehearsed.topology.as_predicted

    def test_nothing_is_left(self, rehearsed: Record, plan: Plan) -> None:
        for domain in (plan.recovery, plan.source):
            for host in domain.hosts:
                assert sweep_host(host, None, remove=False).found == ()
            assert domain.store.uploads() == []

    def test_withdraw_twice(self, rehearsed: Record, plan: Plan) -> None:
        for _ in range(2):
            assert plan.engine.withdraw(plan.source, rehearsed.rehearsal_id) == []

    def test_runbook_restores(self, rehearsed: Record, plan: Plan, tmp_path: Path) -> None:
        """Executed by a shell that knows nothing of farside."""
        script = tmp_path / "runbook.sh"
        commands = [line for step in rehearsed.runbook for line in step.commands]
        script.write_text("\n".join([*commands, *self.proof(plan)]) + "\n")
        done = subprocess.run(
            ["sh", str(script)],
            env=self.environment(plan, tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            **self.account(tmp_path),
        )
        assert done.returncode == 0, done.stderr
        assert self.proven in done.stdout

    proven: str

    def proof(self, plan: Plan) -> list[str]:
        """Commands that show the data, and then stop the server."""
        raise NotImplementedError

    def environment(self, plan: Plan, tmp_path: Path) -> dict[str, str]:
        """What an operator would have at hand: the identity, the store's login, a place."""
        raise NotImplementedError

    def account(self, tmp_path: Path) -> dict[str, object]:
        """Who runs it."""
        raise NotImplementedError
