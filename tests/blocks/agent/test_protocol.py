"""What is said between orchestrator and agent survives being written and read."""

import io
import zipfile
from pathlib import Path
from typing import Any, get_args

import pytest

from blocks.agent import bundle
from blocks.agent.protocol import events, from_line, jobs, parts, results, to_line
from blocks.agent.protocol.events import Answer, Event
from blocks.agent.protocol.jobs import Job
from blocks.artifact.objects import Part, SealedObject, Volume
from blocks.engines.etcd import on_host
from blocks.engines.postgres.wal import FILES

OBJECT = SealedObject("n", 1, 2, (Volume("n", 2, (Part(2, "00"),)),))
SAID: list[tuple[Any, Any]] = [
    (Job, jobs.SealJob(argv=("a",), sources=(), recipients=(), secret="s")),
    (Job, jobs.FollowJob(argv=(), directory="d", files=FILES, recipients=(), interval_seconds=1.0)),
    (Job, jobs.CopyJob(objects=(OBJECT,), rate=1.5)),
    (
        Job,
        jobs.OpenJob(
            items=(
                parts.OpenItem(object=OBJECT, target=parts.TarTarget(directory="d")),
                parts.OpenItem(
                    object=OBJECT, target=parts.ProgramTarget(argv=("a",), directory="d")
                ),
                parts.OpenItem(object=OBJECT, target=parts.FileTarget(path="p")),
            ),
            identity="i",
        ),
    ),
    (Job, jobs.FactsJob(ports=(("127.0.0.1", 1),))),
    (Job, jobs.ProbeJob(endpoints=(("::1", 2),))),
    (Job, jobs.NoteJob(work_dir="w", rehearsal_id="r", directory="d", pidfile="d/p")),
    (
        Job,
        jobs.ClaimJob(
            work_dir="w",
            rehearsal_id="r",
            token="t",
            directories=("d",),
            ports=(("127.0.0.1", 1),),
        ),
    ),
    (Job, jobs.SweepJob(work_dir="w")),
    (Job, jobs.WatchJob()),
    (Job, jobs.GuardJob(work_dir="w", rehearsal_id="r", nft_argv=("nft",), table="t")),
    (Job, jobs.ProgramJob(name="n", module="m", request={"secret": "s"})),
    (Event, events.Released()),
    (Event, events.Listening(port=1)),
    (Event, events.Caught(seconds_ago=0.5, address="a", port=2, pid=None, process=None)),
    (Event, events.PutLease(object="o", volume=0, first=1, count=8)),
    (Event, events.PutObjectLease(object="o")),
    (Event, events.GetLease(object="o", volume=0, key="o.000")),
    (Event, events.VolumeSealed(object="o", volume=0, parts=(Part(1, "s"),), etags=("e",))),
    (Event, events.Prepare()),
    (Event, events.Stored(object=OBJECT, segment_time=1.5)),
    (Event, events.PartLanded(object="o", volume=0, part=1, etag="e")),
    (Event, events.Alive()),
    (Event, events.Progress(object="o", raw=1, sealed=2)),
    (Event, events.StepTaken(name="n", started_at=1.0, ended_at=2.0, bytes=3)),
    (Event, events.Done(result=results.CopyResult(copied_bytes=1, skipped_bytes=2), peak_rss=3)),
    (Event, events.Failed(kind="permanent", code="no-space", message="m", host_errno=28)),
    (Answer, events.Urls(urls=("u",))),
    (Answer, events.Url(url="u")),
    (Answer, events.Ok()),
    (Answer, events.Stop()),
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
    assert "'s'" not in repr(jobs.ProgramJob(name="n", module="m", request={"secret": "s"}))


def test_the_one_file_is_the_same_each_time() -> None:
    first, name = bundle.build(), bundle.digest()
    bundle._built.cache_clear()
    bundle.digest.cache_clear()
    assert (bundle.build(), bundle.digest()) == (first, name)


def test_a_program_is_brought_without_its_packages() -> None:
    def files(image: bytes) -> dict[str, bytes]:
        with zipfile.ZipFile(io.BytesIO(image)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}

    plain, brought = files(bundle.build()), files(bundle.build("blocks.engines.etcd.on_host"))
    assert not [name for name in plain if "engines" in name]
    added = {name: text for name, text in brought.items() if name.endswith(".py")}
    for name in plain.keys() & added:
        assert added.pop(name) == plain[name]
    program = added.pop("blocks/engines/etcd/on_host.py")
    assert program == Path(str(on_host.__file__)).read_bytes()
    assert added == {
        "blocks/engines/__init__.py": b"",
        "blocks/engines/etcd/__init__.py": b"",
    }
