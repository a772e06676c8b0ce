"""What is said between orchestrator and helper survives being written and read."""

from typing import Any, get_args

import pytest

from blocks.artifact import bundle, job
from blocks.artifact.job import Answer, Event, Job, from_line, to_line
from blocks.artifact.objects import Part, SealedObject, Volume

OBJECT = SealedObject("n", 1, 2, (Volume("n", 2, (Part(2, "00"),)),))
SAID: list[tuple[Any, Any]] = [
    (Job, job.SealJob(argv=("a",), sources=(), recipients=(), secret="s")),
    (Job, job.WalJob(argv=(), directory="d", recipients=(), interval_seconds=1.0)),
    (Job, job.CopyJob(objects=(OBJECT,), rate=1.5)),
    (
        Job,
        job.OpenJob(
            items=(
                job.OpenItem(object=OBJECT, target=job.TarTarget(directory="d")),
                job.OpenItem(object=OBJECT, target=job.ProgramTarget(argv=("a",), directory="d")),
                job.OpenItem(object=OBJECT, target=job.FileTarget(path="p")),
            ),
            identity="i",
        ),
    ),
    (Job, job.FactsJob(ports=(("127.0.0.1", 1),))),
    (Job, job.ProbeJob(endpoints=(("::1", 2),))),
    (Job, job.NoteJob(work_dir="w", rehearsal_id="r", directory="d", pidfile="d/p")),
    (
        Job,
        job.ClaimJob(
            work_dir="w",
            rehearsal_id="r",
            token="t",
            directories=("d",),
            ports=(("127.0.0.1", 1),),
        ),
    ),
    (Job, job.SweepJob(work_dir="w")),
    (Job, job.WatchJob()),
    (Job, job.GuardJob(work_dir="w", rehearsal_id="r", nft_argv=("nft",), table="t")),
    (Job, job.EtcdKeysJob(snapshot="s")),
    (Event, job.Released()),
    (Event, job.Listening(port=1)),
    (Event, job.Caught(seconds_ago=0.5, address="a", port=2, pid=None, process=None)),
    (Event, job.PutLease(object="o", volume=0, first=1, count=8)),
    (Event, job.PutObjectLease(object="o")),
    (Event, job.GetLease(object="o", volume=0, key="o.000")),
    (Event, job.VolumeSealed(object="o", volume=0, parts=(Part(1, "s"),), etags=("e",))),
    (Event, job.Prepare()),
    (Event, job.Stored(object=OBJECT, segment_time=1.5)),
    (Event, job.PartLanded(object="o", volume=0, part=1, etag="e")),
    (Event, job.Alive()),
    (Event, job.Progress(object="o", raw=1, sealed=2)),
    (Event, job.StepTaken(name="n", started_at=1.0, ended_at=2.0, bytes=3)),
    (Event, job.Done(result=job.CopyResult(copied_bytes=1, skipped_bytes=2), peak_rss=3)),
    (Event, job.Failed(kind="permanent", code="no-space", message="m", host_errno=28)),
    (Answer, job.Urls(urls=("u",))),
    (Answer, job.Url(url="u")),
    (Answer, job.Ok()),
    (Answer, job.Stop()),
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
