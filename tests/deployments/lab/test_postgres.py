"""PostgreSQL as a part of the lab."""

from pathlib import Path

from deployments.lab.parts.postgres import PART
from tests.deployments.lab.conftest import minted


def test_its_secrets(tmp_path: Path) -> None:
    assert minted(PART, tmp_path) == {
        "east": {"postgres-password", "replication-password"},
        "west": {"shop-password"},
    }
