"""What pg_basebackup is told of the load that it may be for the source."""

from types import SimpleNamespace
from typing import Any

import pytest

from blocks.engines.postgres.capture import Capture, Remembered
from blocks.engines.postgres.facts import PostgresFacts, read
from blocks.plan.model import BackupSelection
from tests.blocks.engines.test_pg_facts import FACTS


def words(backup: BackupSelection) -> list[str]:
    """The command line of a base backup."""
    run: list[str] = []

    def seal(_host: Any, argv: list[str], **_: Any) -> int:
        run.extend(argv)
        return 1

    sink: Any = SimpleNamespace(load=backup.load, seal=seal)
    facts = read(PostgresFacts, FACTS | {"tablespaces": []})
    tool: Any = SimpleNamespace(bin_dir="/bin")
    nobody: Any = None
    capture = Capture(
        host=nobody,
        tool=tool,
        secret=nobody,
        conninfo="dbname=x",
        slot="x",
        superuser=nobody,
        sink=sink,
        facts=facts,
        known=Remembered(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blocks.engines.postgres.burden.log_in_base", lambda *_, **__: "none")
        capture.base(lambda: None)
    return run


@pytest.mark.parametrize(
    ("given", "kilobytes"),
    [
        ({}, 195_312),  # 200 MB/s: no plan's omission leaves production's reading unlimited
        ({"rate": "50MB/s"}, 48_828),
        ({"rate": "400MB/s"}, 390_625),
        ({"rate": "1kB/s"}, 32),  # pg_basebackup takes no less
        ({"rate": "10GB/s"}, 1_048_576),  # nor more
    ],
)
def test_the_rate_at_which_the_source_is_read(given: dict[str, Any], kilobytes: int) -> None:
    assert f"--max-rate={kilobytes}" in words(BackupSelection(**given))


@pytest.mark.parametrize(
    ("given", "mode"),
    [({}, "spread"), ({"checkpoint": "spread"}, "spread"), ({"checkpoint": "fast"}, "fast")],
)
def test_how_the_checkpoint_before_it_is_made(given: dict[str, Any], mode: str) -> None:
    argv = words(BackupSelection(**given))
    assert argv[argv.index("-c") + 1] == mode
