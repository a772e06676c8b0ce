"""Copying between two stores, each with its own CA."""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from blocks.agent.protocol.events import PartLanded, VolumeSealed
from blocks.agent.protocol.jobs import CopyJob, SealJob
from blocks.agent.protocol.parts import Landed, Source
from blocks.artifact.objects import Part, SealedObject, Volume

MIB = 2**20


def sealed(near: Any, keys: Any, path: Path, size: int) -> SealedObject:
    path.write_bytes(os.urandom(size))
    job = SealJob(
        argv=("cat", str(path)),
        sources=(Source(name="it.zst.age", kind="stdout"),),
        recipients=(keys.recipient,),
        part_size=5 * MIB,
        volume_parts=2,
        ca_pem=near.store.ca_pem,
    )
    found: SealedObject = near.run(job).done.result.objects[0]
    return found


def job(far: Any, *objects: SealedObject, **more: Any) -> CopyJob:
    return CopyJob(objects=objects, ca_source=far.source.ca_pem, ca_target=far.store.ca_pem, **more)


def same(near: Any, far: Any, sealed: SealedObject) -> bool:
    return all(
        near.path(volume.key).read_bytes() == far.path(volume.key).read_bytes()
        for volume in sealed.volumes
    )


def test_objects_arrive_whole(near: Any, far: Any, keys: Any, tmp_path: Path) -> None:
    big = sealed(near, keys, tmp_path / "noise", 17 * MIB)
    body = b"a log segment, sealed"
    near.store.client.put_object(Bucket="sets", Key=f"{near.prefix}/wal/1.zst.age", Body=body)
    part = Part(len(body), hashlib.sha256(body).hexdigest())
    small = SealedObject(
        "wal/1.zst.age", 1, len(body), (Volume("wal/1.zst.age", len(body), (part,)),)
    )
    outcome = far.run(job(far, big, small))
    assert outcome.done.result.copied_bytes == big.sealed_bytes + len(body)
    assert same(near, far, big)
    assert same(near, far, small)
    assert len(outcome.of(PartLanded)) == 5
    assert [event.volume for event in outcome.of(VolumeSealed)] == [0, 1]


def test_a_copy_that_was_interrupted_resumes(
    near: Any, far: Any, keys: Any, tmp_path: Path
) -> None:
    sealed_object = sealed(near, keys, tmp_path / "noise", 17 * MIB)
    run = far.start(job(far, sealed_object, rate=6 * MIB, parallel=1))
    while len(run.outcome.of(PartLanded)) < 2:
        time.sleep(0.02)
        assert run.process.poll() is None
    run.stdin.close()
    assert run.wait().failed.code == "aborted"
    landed = tuple(
        Landed(object=e.object, volume=e.volume, part=e.part, etag=e.etag)
        for e in run.outcome.of(PartLanded)
    )
    outcome = far.run(job(far, sealed_object, landed=landed))
    assert outcome.done.result.skipped_bytes >= 10 * MIB
    assert outcome.done.result.copied_bytes + outcome.done.result.skipped_bytes == (
        sealed_object.sealed_bytes
    )
    assert same(near, far, sealed_object)


def test_the_rate_is_a_limit_for_all_together(
    near: Any, far: Any, keys: Any, tmp_path: Path
) -> None:
    sealed_object = sealed(near, keys, tmp_path / "noise", 12 * MIB)
    started = time.monotonic()
    far.run(job(far, sealed_object, rate=4 * MIB)).done  # noqa: B018
    assert 2.5 < time.monotonic() - started < 12


def test_a_part_that_is_not_the_manifests_is_not_copied(
    near: Any, far: Any, keys: Any, tmp_path: Path
) -> None:
    sealed_object = sealed(near, keys, tmp_path / "noise", 6 * MIB)
    path = near.path(sealed_object.volumes[0].key)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    outcome = far.run(job(far, sealed_object))
    assert outcome.failed.code == "object-corrupt"
    assert "volume 0, part 1" in outcome.failed.message
    assert not outcome.of(VolumeSealed)


def test_an_object_that_is_missing(near: Any, far: Any, keys: Any, tmp_path: Path) -> None:
    sealed_object = sealed(near, keys, tmp_path / "noise", MIB)
    volume = replace(sealed_object.volumes[0], key="elsewhere.000")
    failed = far.run(job(far, replace(sealed_object, volumes=(volume,)))).failed
    assert failed.code == "object-missing"


def test_a_rate_is_no_reason_to_wait_when_told_to_end(
    near: Any, far: Any, keys: Any, tmp_path: Path
) -> None:
    sealed_object = sealed(near, keys, tmp_path / "noise", 6 * MIB)
    run = far.start(job(far, sealed_object, rate=1000.0))
    time.sleep(0.5)
    run.stdin.close()
    assert run.process.wait(3) != 0


def test_a_job_without_a_log_ignores_stop(near: Any, far: Any, keys: Any, tmp_path: Path) -> None:
    sealed_object = sealed(near, keys, tmp_path / "noise", MIB)
    run = far.start(job(far, sealed_object))
    run.stop()
    run.wait().done  # noqa: B018
