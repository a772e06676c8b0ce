"""Galera as a part of the lab."""

from pathlib import Path

from deployments.lab.parts.galera import PART
from tests.deployments.lab.conftest import minted


def test_its_secrets(tmp_path: Path) -> None:
    assert minted(PART, tmp_path) == {
        "east": {"galera-backup-password"},
        "west": {"galera-shop-password"},
    }
