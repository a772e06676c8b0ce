"""A site's own programs are looked at, never run."""

import hashlib
import shutil
from pathlib import Path

import pytest

from blocks.agent.jobs.facts import _tools
from blocks.engines.common.programs import COMMON
from blocks.engines.registry import engines, version_words


@pytest.mark.parametrize("name", ["restore.sh", "failover.sh", "fence", "age-wrapper"])
def test_a_program_of_the_site_is_not_run_for_its_version(tmp_path: Path, name: str) -> None:
    script, ran = tmp_path / name, tmp_path / "ran"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    (facts,) = _tools([str(script)], version_words())
    assert not ran.exists()
    assert facts.path == str(script)
    assert facts.version == f"sha256:{hashlib.sha256(script.read_bytes()).hexdigest()}"


def test_a_program_that_farside_needs_tells_its_version() -> None:
    tar, nothing = _tools(["tar", "no-such-tool"], version_words())
    assert "tar" in (tar.version or "")
    assert (nothing.path, nothing.package) == (None, "")


def test_each_engine_says_which_of_its_programs_may_be_asked() -> None:
    words = [item.version_words for item in engines().values()]
    assert sum(map(len, words)) + len(COMMON) == len(version_words()), "no two name the same"
    assert {version_words()[name] for name in ("psql", "mariadb", "redis-cli")} == {"--version"}
    assert version_words()["etcdctl"] == "version"


def test_a_program_is_asked_by_its_own_word(tmp_path: Path) -> None:
    script = tmp_path / "dbctl"
    script.write_text('#!/bin/sh\necho "dbctl 4.2, by $*"\n')
    script.chmod(0o755)
    (facts,) = _tools([str(script)], {"dbctl": "version"})
    assert facts.version == "dbctl 4.2, by version"


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="Debian's packages are asked")
def test_packages_of_tools() -> None:
    found = {tool.name: tool.package for tool in _tools(["tar", "dpkg-query"], version_words())}
    assert found == {"tar": "tar", "dpkg-query": "dpkg"}
