"""etcd as a part of the lab."""

from pathlib import Path

from deployments.lab.parts.etcd import PART
from tests.deployments.lab.conftest import minted


def test_its_secrets(tmp_path: Path) -> None:
    # What the restored cluster is asked with is what the source had.
    assert minted(PART, tmp_path) == {
        "east": {"etcd-root-password"},
        "west": {"etcd-root-password", "etcd-shop-password"},
    }
