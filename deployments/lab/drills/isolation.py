"""Drills of isolation and side effects."""

from collections.abc import Iterator

from deployments.lab.drills.board import drill
from deployments.lab.drills.ground import OLDER, Ground


@drill("fence-leaks", "declare")
def fence_leaks(ground: Ground) -> Iterator[None]:
    """What should cut east off does nothing."""
    ground.losing["raise_argv"] = ["true"]
    with ground.without_filters():
        yield


@drill("fence-stays", "teardown")
def fence_stays(ground: Ground) -> Iterator[None]:
    """The command that should give east back fails."""
    ground.losing["lift_argv"] = ["false"]
    yield


@drill("work-dir-untrusted", "preflight")
def work_dir_untrusted(ground: Ground) -> Iterator[None]:
    """Every account may write to farside's directory on a host of west."""
    folder = ground.home("west") / "farside"
    folder.mkdir(exist_ok=True)
    ground.own(folder)
    folder.chmod(0o777)
    try:
        yield
    finally:
        folder.chmod(0o700)


@drill("leftovers", "preflight")
def leftovers(ground: Ground) -> Iterator[None]:
    """An earlier rehearsal was killed, and left its directory on a host of west."""
    from blocks.agent import marks

    folder = ground.home("west") / "farside" / OLDER
    folder.mkdir(parents=True)
    ground.own(folder.parent)
    ground.own(folder)
    marker = folder / marks.FILE
    marker.touch()
    ground.own(marker)
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)
        folder.rmdir()
