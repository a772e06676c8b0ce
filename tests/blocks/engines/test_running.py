"""Servers of the source's on a recovery host: known again, and no other is taken for one."""

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from blocks.agent import stamp
from blocks.engines.postgres import survey
from blocks.engines.postgres.facts import PostgresFacts
from blocks.engines.postgres.running import running
from blocks.hosts.local import LocalHost
from tests.blocks.engines.servers import Server, server

pytestmark = pytest.mark.slow

HERE = LocalHost(name="here", python=sys.executable)


@pytest.fixture(scope="module")
def source() -> Iterator[Server]:
    with server(15) as made:
        yield made


@pytest.fixture
def facts(source: Server) -> PostgresFacts:
    return survey.survey(source.psql())


def test_the_source_itself(source: Server, facts: PostgresFacts) -> None:
    (text,) = running(facts, HERE).of_source
    assert text.startswith("the source's server runs there: process ")
    assert text.endswith(f" in {source.data}")


def test_a_copy_is_none_of_the_sources(facts: PostgresFacts) -> None:
    """It bears the same identifier, and was started at another time."""
    assert running(replace(facts, started=(facts.started or 0) - 3600), HERE).of_source == ()
    assert running(replace(facts, started=None), HERE).of_source == ()


def test_a_standby_of_the_source(source: Server, facts: PostgresFacts) -> None:
    sign = source.data / "standby.signal"
    sign.touch()
    try:
        (text,) = running(replace(facts, started=0), HERE).of_source
        assert text.startswith("a standby of the source's cluster runs there")
        assert running(replace(facts, system_identifier="1"), HERE).of_source == ()
    finally:
        sign.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another account")
def test_what_another_account_may_not_see(facts: PostgresFacts, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    stranger = tmp_path / "python"
    stranger.write_text(
        "#!/bin/sh\necho Welcome\n"
        'exec setpriv --reuid 12345 --regid 12345 --clear-groups /usr/bin/python3 "$@"\n'
    )
    stranger.chmod(0o755)
    seen = running(facts, LocalHost(name="here", python=str(stranger)))
    assert seen.of_source == ()
    assert any("belongs to another account" in text for text in seen.unknown)


def test_what_a_rehearsal_restored(source: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stamp.VARIABLE, "r20260102-030405-abcdef:t")
    source.ctl("restart", "-m", "fast")
    assert running(survey.survey(source.psql()), HERE).of_source == ()
