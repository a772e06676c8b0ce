"""What pg_basebackup is told of the load that it may be for the source."""

from types import SimpleNamespace
from typing import Any

import pytest

from blocks.engines.postgres import Postgres
from blocks.plan.model import BackupSelection


def words(backup: BackupSelection) -> list[str]:
    """The command line of a base backup."""
    run: list[str] = []

    def seal(_host: Any, argv: list[str], **_: Any) -> int:
        run.extend(argv)
        return 1

    engine: Any = SimpleNamespace(backup=SimpleNamespace(bin_dir="/bin"), _has_waited=False)
    sink: Any = SimpleNamespace(load=backup.load, seal=seal)
    facts = {"in_recovery": False, "tablespaces": [], "burden": {"archive_mode": "off"}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("blocks.engines.postgres.burden.log_in_base", lambda *_, **__: "none")
        Postgres._base(engine, sink, None, "dbname=x", None, facts, lambda: None)  # type: ignore[arg-type]
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
