"""What is said between orchestrator and helper survives being written and read."""

from typing import Any, get_args

import pytest

from blocks.agent import bundle, protocol
from blocks.agent.protocol import Answer, Event, Job, from_line, to_line
from blocks.artifact.objects import Part, SealedObject, Volume

OBJECT = SealedObject("n", 1, 2, (Volume("n", 2, (Part(2, "00"),)),))
SAID: list[tuple[Any, Any]] = [
    (Job, protocol.SealJob(argv=("a",), sources=(), recipients=(), secret="s")),
    (Job, protocol.WalJob(argv=(), directory="d", recipients=(), interval_seconds=1.0)),
    (Job, protocol.CopyJob(objects=(OBJECT,), rate=1.5)),
    (
        Job,
        protocol.OpenJob(
            items=(
                protocol.OpenItem(object=OBJECT, target=protocol.TarTarget(directory="d")),
                protocol.OpenItem(
                    object=OBJECT, target=protocol.ProgramTarget(argv=("a",), directory="d")
                ),
                protocol.OpenItem(object=OBJECT, target=protocol.FileTarget(path="p")),
            ),
            identity="i",
        ),
    ),
    (Job, protocol.FactsJob(ports=(("127.0.0.1", 1),))),
    (Job, protocol.ProbeJob(endpoints=(("::1", 2),))),
    (Job, protocol.NoteJob(work_dir="w", rehearsal_id="r", directory="d", pidfile="d/p")),
    (
        Job,
        protocol.ClaimJob(
            work_dir="w",
            rehearsal_id="r",
            token="t",
            directories=("d",),
            ports=(("127.0.0.1", 1),),
        ),
    ),
    (Job, protocol.SweepJob(work_dir="w")),
    (Job, protocol.WatchJob()),
    (Job, protocol.GuardJob(work_dir="w", rehearsal_id="r", nft_argv=("nft",), table="t")),
    (Job, protocol.EtcdKeysJob(snapshot="s")),
    (Event, protocol.Released()),
    (Event, protocol.Listening(port=1)),
    (Event, protocol.Caught(seconds_ago=0.5, address="a", port=2, pid=None, process=None)),
    (Event, protocol.PutLease(object="o", volume=0, first=1, count=8)),
    (Event, protocol.PutObjectLease(object="o")),
    (Event, protocol.GetLease(object="o", volume=0, key="o.000")),
    (Event, protocol.VolumeSealed(object="o", volume=0, parts=(Part(1, "s"),), etags=("e",))),
    (Event, protocol.Prepare()),
    (Event, protocol.Stored(object=OBJECT, segment_time=1.5)),
    (Event, protocol.PartLanded(object="o", volume=0, part=1, etag="e")),
    (Event, protocol.Alive()),
    (Event, protocol.Progress(object="o", raw=1, sealed=2)),
    (Event, protocol.StepTaken(name="n", started_at=1.0, ended_at=2.0, bytes=3)),
    (Event, protocol.Done(result=protocol.CopyResult(copied_bytes=1, skipped_bytes=2), peak_rss=3)),
    (Event, protocol.Failed(kind="permanent", code="no-space", message="m", host_errno=28)),
    (Answer, protocol.Urls(urls=("u",))),
    (Answer, protocol.Url(url="u")),
    (Answer, protocol.Ok()),
    (Answer, protocol.Stop()),
]


@pytest.mark.parametrize(("kind", "value"), SAID, ids=lambda v: type(v).__name__)
def test_said_and_understood(kind: Any, value: Any) -> None:
    line = to_line(value)
    assert line.count("\n") == 1
    assert from_line(kind, line) == value


def test_everything_that_can_be_said_is_tried_here() -> None:
    tried = {type(value) for _, value in SAID}
    assert {*get_args(Job), *get_args(Event), *get_args(Answer)} <= tried


def test_secrets_are_in_no_repr() -> None:
    for _, value in SAID[:4]:
        assert "'s'" not in repr(value)
        assert "identity" not in repr(value)


def test_the_one_file_is_the_same_each_time() -> None:
    first, name = bundle.build(), bundle.digest()
    bundle._built.cache_clear()
    bundle.digest.cache_clear()
    assert (bundle.build(), bundle.digest()) == (first, name)
