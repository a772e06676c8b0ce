"""The command engine: what an exit code, silence, and a source's word mean."""

import os
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from blocks.agent.jobs import facts as facts_job
from blocks.agent.protocol.events import Alive, Event
from blocks.agent.protocol.jobs import FactsJob
from blocks.engines.checks import SqlQuestion, guarded
from blocks.engines.command import ACCESS, Command, _asked, access
from blocks.errors import PermanentError
from blocks.evidence.record import CheckStatus
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
    service: Any = SimpleNamespace(host="db1", controls={"db1": "/w"})
    using: Any = SimpleNamespace(recovery=domain, host=domain.host)
    question = SqlQuestion("seven", "", "7", "7")
    said = [repr(check) for check in command.verify(service, using, [question])]
    source = command.source.model_copy(update=common | {"bytes_argv": asks[1]})
    for ask in (
        partial(command.recovered_until, service, domain),
        partial(command.ticks, service, domain, "", ""),
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
    service: Any = SimpleNamespace(host="db1", controls={"db1": "/w"})
    using: Any = SimpleNamespace(recovery=domain, host=domain.host)
    (check,) = command.verify(service, using, [])
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
    (check,) = guarded("access", ACCESS, lambda: access(HERE, sh(script), source_open=source_open))
    assert check.status is status, check
    if status is CheckStatus.FAILED:
        assert check.finding == "service-more-open"


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
    question = SqlQuestion("seven", "", "", "7")

    def ask() -> str:
        return HERE.run(sh(script)).text.strip()

    (check,) = guarded("seven", "7", partial(_asked, question, ask))
    assert check.status is status, check


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
        engine().check_facts({"version": version, "bytes": 1})
    engine().check_facts({"version": "redis-cli 7.0.15", "bytes": 1})


def test_silence_is_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    made = engine(value_argv=["true"])
    monkeypatch.setattr(Command, "_run", lambda *_: "")
    service: Any = type("S", (), {"controls": {"h": "/w"}, "host": "h"})
    with pytest.raises(PermanentError, match="prints nothing"):
        made.value(service, made, "", "q")  # type: ignore[arg-type]


def test_what_no_command_asks_is_said() -> None:
    asked, silent = engine(anonymous_argv=["true"]), engine()
    assert not any("anonymous_argv" in text for text in asked.not_verified({"open": False}))
    assert any("anonymous_argv" in text for text in asked.not_verified({"open": None}))
    assert any("anonymous_argv" in text for text in silent.not_verified({"open": False}))


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
