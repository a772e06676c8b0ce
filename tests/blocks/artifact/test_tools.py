"""A site's own programs are looked at, never run."""

import hashlib
import shutil
from pathlib import Path

import pytest

from blocks.agent.jobs.facts import _tools


@pytest.mark.parametrize("name", ["restore.sh", "failover.sh", "fence", "age-wrapper"])
def test_a_program_of_the_site_is_not_run_for_its_version(tmp_path: Path, name: str) -> None:
    script, ran = tmp_path / name, tmp_path / "ran"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    (facts,) = _tools([str(script)])
    assert not ran.exists()
    assert facts.path == str(script)
    assert facts.version == f"sha256:{hashlib.sha256(script.read_bytes()).hexdigest()}"


def test_a_program_that_farside_needs_tells_its_version() -> None:
    tar, nothing = _tools(["tar", "no-such-tool"])
    assert "tar" in (tar.version or "")
    assert (nothing.path, nothing.package) == (None, "")


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="Debian's packages are asked")
def test_packages_of_tools() -> None:
    found = {tool.name: tool.package for tool in _tools(["tar", "dpkg-query"])}
    assert found == {"tar": "tar", "dpkg-query": "dpkg"}
