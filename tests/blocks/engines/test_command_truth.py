"""The command engine: what an exit code, silence, and a source's word mean."""

import json
import os
import sys
import threading
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.agent.jobs import facts as facts_job
from blocks.agent.protocol.events import Alive, Event
from blocks.agent.protocol.jobs import FactsJob
from blocks.engines.checks import CheckSpec, SqlQuestion, run_check
from blocks.engines.command import Command
from blocks.engines.command.facts import CommandFacts
from blocks.engines.command.restored import ACCESS, RestoredSystem, access, answer_to
from blocks.engines.command.running import TargetCommands
from blocks.errors import PermanentError
from blocks.evidence.record import CheckStatus, SourceNode
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from blocks.remote.jobs import facts_of

HERE = LocalHost(name="here")


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


GIVEN = "hunter2 it's"
TELLING = 'read -r line; set -x; : "$line"; set +x; echo "it is $line"'


def test_no_answer_tells_the_password_that_was_given() -> None:
    """Neither a check, nor an error, nor the facts, whatever the site's commands print."""
    common = {"password": "service"}
    asks = ("bash", "-c", f"{TELLING}; exit 3"), ("bash", "-c", TELLING)
    command = engine(
        **common,
        verify=[{"name": f"v{n}", "argv": argv, "expected": "y"} for n, argv in enumerate(asks)],
        value_argv=asks[1],
        recovered_until_argv=asks[1],
        ticks_argv=asks[1],
    )
    domain: Any = SimpleNamespace(
        name="west", host=lambda _: HERE, secret=lambda _: SecretStr(GIVEN)
    )
    service = restored(command, domain)
    question = SqlQuestion("seven", "", "7", "7")
    said = [repr(run_check(spec)) for spec in service.usable([question])]
    source = command.source.model_copy(update=common | {"bytes_argv": asks[1]})
    for ask in (
        service.newest_transaction,
        partial(service.heartbeat, "", ""),
        partial(command.model_copy(update={"source": source}).survey, domain),
    ):
        with pytest.raises(PermanentError) as refused:
            ask()
        said.append(str(refused.value))
    assert len(said) == 6
    for text in said:
        assert "hunter2" not in text
        assert "***" in text


def test_an_answer_with_a_password_in_it_is_compared_as_it_is() -> None:
    asked = {"name": "v", "argv": sh("cat"), "expected": GIVEN}
    command = engine(password="service", verify=[asked])
    domain: Any = SimpleNamespace(host=lambda _: HERE, secret=lambda _: SecretStr(GIVEN))
    service = restored(command, domain)
    (spec,) = service.usable([])
    check = run_check(spec)
    assert check.status is CheckStatus.PASSED


@pytest.mark.parametrize(
    ("script", "source_open", "status"),
    [
        ("exit 1", False, CheckStatus.PASSED),
        ("exit 1", True, CheckStatus.PASSED),
        ("exit 0", True, CheckStatus.PASSED),
        ("exit 0", False, CheckStatus.FAILED),
        ("exit 0", None, CheckStatus.UNKNOWN),
        ("no-such-program", False, CheckStatus.UNKNOWN),
        ("kill -9 $$", False, CheckStatus.UNKNOWN),
    ],
)
def test_a_service_that_lets_anybody_in(
    script: str, source_open: bool | None, status: CheckStatus
) -> None:
    ask = partial(access, HERE, sh(script), source_open=source_open)
    check = run_check(CheckSpec("access", ACCESS, ask))
    assert check.status is status, check
    if status is CheckStatus.FAILED:
        domain: Any = SimpleNamespace(host=lambda _: HERE)
        *_, spec = restored(engine(anonymous_argv=sh(script)), domain).usable([])
        assert (spec.name, spec.finding) == ("access", "service-more-open")


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("echo 7", CheckStatus.PASSED),
        ("echo 8", CheckStatus.FAILED),
        ("echo 7; exit 3", CheckStatus.FAILED),
        ("no-such-program", CheckStatus.UNKNOWN),
    ],
)
def test_a_question_of_the_plan(script: str, status: CheckStatus) -> None:
    def ask() -> str:
        return HERE.run(sh(script)).text.strip()

    check = run_check(CheckSpec("seven", "7", partial(answer_to, "7", ask)))
    assert check.status is status, check


def restored(made: Command, domain: Any, source_open: bool | None = None) -> RestoredSystem:
    """What it restores, on this machine."""
    using: Any = SimpleNamespace(
        recovery=domain,
        host=domain.host,
        work=lambda _: "/w",
        facts=CommandFacts("7", 1, open=source_open),
    )
    return RestoredSystem(using, made.target, made.system)


def engine(**target: Any) -> Command:
    argv = ["true"]
    common = {"host": "db1", "address": "10.0.0.1", "port": 1}
    return Command.model_validate(
        {
            "kind": "command",
            "system": "it",
            "source": common | dict.fromkeys(("version_argv", "capture_argv", "bytes_argv"), argv),
            "target": common
            | {"directory": "/d", "pidfile": "/d/p", "programs": []}
            | dict.fromkeys(("version_argv", "restore_argv", "destroy_argv"), argv)
            | {"verify": [{"name": "x", "argv": argv, "expected": "y"}]}
            | target,
        }
    )


@pytest.mark.parametrize("version", ["", "7\nrm -rf /", "7\x1b[2J", 7, "x" * 501])
def test_a_version_is_a_line(version: object) -> None:
    with pytest.raises(PermanentError, match="no version and size"):
        engine().read_facts({"version": version, "bytes": 1})
    engine().read_facts({"version": "redis-cli 7.0.15", "bytes": 1})


def test_silence_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(value_argv=["true"])
    monkeypatch.setattr(TargetCommands, "run", lambda *_: "")
    domain: Any = SimpleNamespace(host=lambda _: HERE)
    with pytest.raises(PermanentError, match="prints nothing"):
        restored(made, domain).query("", "q")


def test_what_no_command_asks_is_said() -> None:
    asked, silent = engine(anonymous_argv=["true"]), engine()
    domain: Any = SimpleNamespace(host=lambda _: HERE)

    def missed(made: Command, source_open: bool | None) -> bool:
        service = restored(made, domain, source_open)
        return any("anonymous_argv" in text for text in service.not_verified)

    assert not missed(asked, False)
    assert missed(asked, None)
    assert missed(silent, False)


def test_what_an_older_set_does_not_say_is_not_known() -> None:
    facts = engine().read_facts({"version": "7.0.15", "bytes": 1})
    assert (facts.nodes, facts.open, facts.peers()) == (None, None, ())
    newer = engine().read_facts({**facts.to_json(), "later": [1]})
    assert newer == facts


def test_facts_are_what_they_were_written_as() -> None:
    facts = CommandFacts("7", 9, "redis", (SourceNode("db1", "redis", "10.1.0.1", 6379),), False)
    said = json.loads(json.dumps(facts.to_json()))
    assert said["nodes"] == [asdict(item) for item in facts.nodes or ()]
    assert engine().read_facts(said) == facts


@pytest.mark.parametrize(
    "wrong", [{"bytes": "1"}, {"bytes": None}, {"open": "no"}, {"nodes": [{"name": 7}]}]
)
def test_facts_of_another_form_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="no version and size"):
        engine().read_facts({"version": "7", "bytes": 1, **wrong})


def test_a_search_is_heard_of_while_it_advances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file that was read is a sign of life; what is no file is not waited for."""
    monkeypatch.setattr(facts_job, "BEAT_SECONDS", 0.0)
    for number in range(20):
        (tmp_path / f"{number}").write_text("10.9.0.1\n" * 100)
    os.mkfifo(tmp_path / "pipe")
    told = list[Event]()
    channel: Any = type("C", (), {"tell": staticmethod(told.append)})
    job = FactsJob(files=(f"{tmp_path}/**",), foreign=Belongings(networks=("10.9.0.0/16",)))
    found: list[Any] = []
    worker = threading.Thread(target=lambda: found.append(facts_job.run(job, channel)), daemon=True)
    worker.start()
    worker.join(60)
    assert found, "it waits for a pipe"
    assert len(told) >= 20
    assert all(isinstance(event, Alive) for event in told)
    assert len(found[0].mentions) == 1000
    assert found[0].more_mentions == 1000


def test_a_search_runs_on_a_host(tmp_path: Path) -> None:
    host = LocalHost(name="here", work_dir=str(tmp_path / "work"), python=sys.executable)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "file").write_text("one\nhost 10.9.0.1\n")
    job = FactsJob(files=(f"{tmp_path}/deep/**",), foreign=Belongings(networks=("10.9.0.0/16",)))
    found = facts_of(host, "r0", job)
    assert [(item.line, item.text) for item in found.mentions] == [(2, "10.9.0.1")]
