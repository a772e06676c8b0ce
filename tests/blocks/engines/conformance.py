"""The suite that every engine passes: a subclass names a plan of the lab, and gets all of it."""

import json
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from blocks.engines.registry import catalogue
from blocks.evidence.record import CheckStatus, Record, Verdict
from blocks.plan.loading import load_plan
from blocks.plan.model import Plan
from blocks.remote.jobs import sweep_host
from blocks.repositories.farside.listing import unfinished
from blocks.repositories.farside.reader import SetReader
from blocks.stores.s3 import S3Store
from deployments import lab
from deployments.lab.accounts import service_account
from deployments.lab.places import Places
from docs.generate import plan_schema, record_schema
from flows.rehearse import Watcher, rehearse, watching
from tests.schemas import schema_errors


class EngineConformance:
    """Set the class variables; override `plan_path` for a plan that is not the lab's own."""

    plan_name: ClassVar[str]
    cannot_run: ClassVar[frozenset[str]] = frozenset()
    """Checks that this plan's source leaves no way to run."""
    known_findings: ClassVar[frozenset[tuple[str, str]]] = frozenset()
    """Ids and subjects of what is truly wrong with this plan's source."""
    growing: ClassVar[frozenset[str]]
    """Steps of a restore and a verification whose time grows with the size of the data."""
    runbook_variables: ClassVar[Mapping[str, str]]
    """Where the runbook is to restore to; `{place}` is an empty directory, `{port}` a free port."""
    runbook_secrets: ClassVar[Mapping[str, str]] = {}
    """Variable, which will name a file -> the secret of the recovery vault that it holds."""
    runbook_proof: ClassVar[tuple[str, ...]]
    """Shell commands after the runbook's that show the data."""
    runbook_end: ClassVar[str]
    """The shell command that stops what was started, however far it came."""
    proven: ClassVar[str]
    """A regular expression that the proof's output must match."""

    @pytest.fixture(scope="class")
    @classmethod
    def plan_path(cls, places: Places) -> Path:
        return lab.plan_path(places.root, cls.plan_name)

    @pytest.fixture
    def plan(self, plan_path: Path) -> Iterator[Plan]:
        loaded = load_plan(plan_path)
        yield loaded
        loaded.source.close()
        loaded.recovery.close()

    @pytest.fixture(scope="class")
    @classmethod
    def rehearsed(
        cls,
        plan_path: Path,
        prefect_server: None,  # noqa: ARG003
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Record:
        """One rehearsal, as anybody runs it; the tests look at what it left."""
        results = tmp_path_factory.mktemp("rehearsals")
        with watching(Watcher()) as watcher:
            rehearse(plan=str(plan_path), results=str(results), return_state=True)
        assert watcher.record is not None
        return watcher.record

    def test_rehearsal_is_verified(self, rehearsed: Record) -> None:
        assert {(item.id, item.subject) for item in rehearsed.findings} == self.known_findings
        failed = [check for check in rehearsed.checks if check.status is CheckStatus.FAILED]
        assert failed == []
        assert {check.finding for check in rehearsed.checks} <= set(catalogue())
        unknown = {c.name for c in rehearsed.checks if c.status is CheckStatus.UNKNOWN}
        assert unknown == self.cannot_run
        assert rehearsed.verdict is (Verdict.PARTIAL if self.cannot_run else Verdict.VERIFIED)
        assert rehearsed.rta_seconds is not None
        assert rehearsed.rta_seconds > 0
        assert rehearsed.rpa_seconds is not None
        assert rehearsed.topology.as_predicted
        assert rehearsed.topology.source
        assert rehearsed.topology.mapping

    def test_what_grows_with_the_data_says_so(self, rehearsed: Record, plan: Plan) -> None:
        """Else recovery at production's size is projected too short."""
        hosts = {node.host for node in plan.engine.predicted_nodes}
        stages = [stage for stage in rehearsed.stages if stage.name in ("restore", "verify")]
        names = {step.name for stage in stages for step in stage.steps if step.grows}
        assert {without_host(name, hosts) for name in names} == self.growing

    def test_facts_are_read_as_they_were_written(self, rehearsed: Record, plan: Plan) -> None:
        assert rehearsed.backup_set is not None
        reader = SetReader(plan.recovery, plan.binding, rehearsed.backup_set.id, "conformance")
        facts = plan.engine.read_facts(reader.manifest().engine_facts)
        assert facts.source_nodes() == rehearsed.topology.source
        assert plan.engine.read_facts(facts.to_json()) == facts

    def test_plan_and_record_satisfy_their_schemas(
        self, rehearsed: Record, plan_path: Path
    ) -> None:
        assert schema_errors(yaml.safe_load(plan_path.read_text()), plan_schema()) == []
        assert schema_errors(json.loads(rehearsed.to_json()), record_schema()) == []

    def test_nothing_is_left(self, rehearsed: Record, plan: Plan) -> None:
        for domain in (plan.recovery, plan.source):
            for host in domain.hosts:
                assert sweep_host(host, None, remove=False).found == (), host.name
            assert domain.store.uploads() == []
            assert rehearsed.rehearsal_id not in unfinished(domain.store, plan.name)
        assert plan.engine.leftovers(plan.source) == []

    def test_clean_source_twice(self, rehearsed: Record, plan: Plan) -> None:
        for _ in range(2):
            assert plan.engine.clean_source(plan.source, rehearsed.rehearsal_id) == []

    def test_runbook_restores(
        self, rehearsed: Record, plan: Plan, places: Places, tmp_path: Path
    ) -> None:
        """Executed by a plain shell, as the account that owns the database, without farside."""
        account = service_account()
        place = Path(tempfile.mkdtemp(prefix="runbook ", dir=places.root.parent))
        script = tmp_path / "runbook.sh"
        steps = [line for step in rehearsed.runbook for line in step.commands]
        end = f"trap {shlex.quote(self.runbook_end)} EXIT"
        lines = [end, f"cd {shlex.quote(str(place))}", *steps, *self.runbook_proof]
        script.write_text("\n".join(lines) + "\n")
        inputs = {"STORE_LOGIN": login(plan.recovery.store), "IDENTITY": identity(plan)}
        for name, secret in self.runbook_secrets.items():
            inputs[name] = plan.recovery.secret(secret).get_secret_value() + "\n"
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(place)}
        for name, text in inputs.items():
            environment[name] = str(place / name)
            (place / name).write_text(text)
            (place / name).chmod(0o600)
            account.own(place / name)
        account.own(place)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for name, value in self.runbook_variables.items():
            environment[name] = value.format(place=place, port=port)
        try:
            with script.open("rb") as typed:
                done = subprocess.run(
                    ["/bin/sh"],
                    stdin=typed,
                    cwd="/",
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=300,
                    check=False,
                    **account.identity,
                )
            assert done.returncode == 0, done.stderr + done.stdout
            assert re.search(self.proven, done.stdout), done.stdout
        finally:
            shutil.rmtree(place)


def without_host(name: str, hosts: set[str]) -> str:
    """The name of a step, of which that of a node begins with the name of its host."""
    first, _, rest = name.partition(" ")
    return rest if first.rstrip(":") in hosts else name


def login(store: S3Store) -> str:
    """The store's login as curl reads it."""
    ini = ConfigParser()
    assert store.credentials_file is not None
    ini.read_string(Path(store.credentials_file).read_text())
    keys = ini[store.profile]
    return f'user = "{keys["aws_access_key_id"]}:{keys["aws_secret_access_key"]}"\n'


def identity(plan: Plan) -> str:
    """The recovery domain's age identity."""
    return plan.recovery.secret(plan.keys.identity).get_secret_value() + "\n"
