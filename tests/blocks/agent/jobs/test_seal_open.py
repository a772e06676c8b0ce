"""Sealing and opening, as real processes against a real store over TLS."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from blocks.agent.protocol.events import Progress, PutLease, StepTaken, VolumeSealed
from blocks.agent.protocol.jobs import OpenJob, SealJob
from blocks.agent.protocol.parts import FileTarget, OpenItem, ProgramTarget, Source, TarTarget
from blocks.artifact.age import generate_identity
from blocks.artifact.objects import SealedObject

MIB = 2**20
PART = 5 * MIB

# Behaves as `pg_basebackup -Ft -D DIR` does: reads a password, makes DIR, then writes one tar
# after the other, and at last a plain file.
BASEBACKUP = """
import os, pathlib, sys, time
folder, *names = sys.argv[1:]
assert sys.stdin.readline() == "the password\\n"
os.mkdir(folder)
time.sleep(0.3)
for number, name in enumerate(names):
    with open(f"{folder}/{name}.tar", "wb") as out:
        for _ in range(8):
            out.write(os.urandom(1 << 20))
        out.write(b"end of " + name.encode())
pathlib.Path(folder, "backup_manifest").write_text("{}")
"""


def seal_job(near: Any, keys: Any, argv: list[str], *sources: Source, **more: Any) -> SealJob:
    return SealJob(
        argv=tuple(argv),
        sources=sources or (Source(name="it.zst.age", kind="stdout"),),
        recipients=(keys.recipient,),
        ca_pem=near.store.ca_pem,
        **{"part_size": PART, **more},
    )


def open_job(near: Any, keys: Any, sealed: SealedObject, target: Any, **more: Any) -> OpenJob:
    return OpenJob(
        items=(OpenItem(object=sealed, target=target),),
        **{"identity": keys.identity, "ca_pem": near.store.ca_pem, **more},
    )


def sealed_file(near: Any, keys: Any, path: Path, **more: Any) -> SealedObject:
    outcome = near.run(seal_job(near, keys, ["cat", str(path)], **more))
    found: SealedObject = outcome.done.result.objects[0]
    return found


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Eleven megabytes that do not compress: three parts."""
    path = tmp_path / "noise"
    path.write_bytes(os.urandom(11 * MIB))
    return path


def gone(pattern: str) -> bool:
    """No process has `pattern` in its command line; waits a little."""
    for _ in range(100):
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found.append(path.read_bytes())
            except OSError:
                continue
        if not any(pattern.encode() in line for line in found):
            return True
        time.sleep(0.05)
    return False


# --- there and back ------------------------------------------------------------------------------


def test_a_tree_crosses_in_several_volumes(near: Any, keys: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "noise").write_bytes(os.urandom(17 * MIB + 3))
    (tree / "sub" / "zeros").write_bytes(bytes(20 * MIB))
    outcome = near.run(seal_job(near, keys, ["tar", "-cC", str(tree), "."], volume_parts=2))
    (sealed,) = outcome.done.result.objects
    assert [volume.key for volume in sealed.volumes] == [f"it.zst.age.00{n}" for n in range(2)]
    assert [len(volume.parts) for volume in sealed.volumes] == [2, 2]
    assert sealed.volumes[0].bytes == 2 * PART
    assert [step.name for step in outcome.of(StepTaken)] == ["it.zst.age"]
    assert outcome.of(Progress)[-1].raw == sealed.raw_bytes

    target = tmp_path / "target"
    opened = near.run(open_job(near, keys, sealed, TarTarget(directory=str(target))))
    assert opened.done.result.raw_bytes == sealed.raw_bytes
    assert opened.done.result.sealed_bytes == sealed.sealed_bytes
    assert subprocess.run(["diff", "-r", "--no-dereference", tree, target]).returncode == 0


def test_another_program_extracts(near: Any, keys: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3 * MIB))
    sealed = sealed_file(near, keys, source)
    argv = ("sh", "-c", 'cat > "$1/copy"', "sh", str(target))
    near.run(open_job(near, keys, sealed, ProgramTarget(argv=argv, directory=str(target)))).done  # noqa: B018
    assert (target / "copy").read_bytes() == source.read_bytes()
    refuses = ("sh", "-c", "echo no more >&2; exit 3")
    failed = near.run(
        open_job(near, keys, sealed, ProgramTarget(argv=refuses, directory=str(target)))
    ).failed
    assert failed.code == "child-failed"
    assert "no more" in failed.message


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 11 * MIB])
def test_a_file_crosses(near: Any, keys: Any, tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(os.urandom(size))
    sealed = sealed_file(near, keys, source)
    near.run(open_job(near, keys, sealed, FileTarget(path=str(target)))).done  # noqa: B018
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_what_is_stored_opens_with_the_standard_tools(
    near: Any, keys: Any, tmp_path: Path, noise: Path
) -> None:
    for tool in ("age", "zstd"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    sealed = sealed_file(near, keys, noise, volume_parts=2)
    identity = tmp_path / "identity"
    identity.write_text(keys.identity)
    volumes = " ".join(str(near.path(volume.key)) for volume in sealed.volumes)
    shell = f"cat {volumes} | age -d -i {identity} | zstd -dq"
    assert subprocess.run(shell, shell=True, capture_output=True).stdout == noise.read_bytes()


def test_the_tars_of_a_base_backup(near: Any, keys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "base backup"
    names = ("16400", "base")
    sources = [
        *(
            Source(name=f"{name}.tar.zst.age", kind="fifo", path=f"{folder}/{name}.tar")
            for name in names
        ),
        Source(name="manifest.zst.age", kind="file", path=f"{folder}/backup_manifest"),
    ]
    argv = [sys.executable, "-c", BASEBACKUP, str(folder), *names]
    outcome = near.run(seal_job(near, keys, argv, *sources, secret="the password"))
    objects = outcome.done.result.objects
    assert [sealed.name for sealed in objects] == [source.name for source in sources]
    assert [sealed.raw_bytes for sealed in objects] == [8 * MIB + 12, 8 * MIB + 11, 2]
    assert not folder.exists()


def test_a_tar_nobody_planned_ends_it(near: Any, keys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    argv = [sys.executable, "-c", BASEBACKUP, str(folder), "16400", "base"]
    source = Source(name="base.tar.zst.age", kind="fifo", path=f"{folder}/base.tar")
    hint = "was a tablespace added?"
    failed = near.run(seal_job(near, keys, argv, source, secret="the password", hint=hint)).failed
    assert failed.code == "child-failed"
    assert "16400.tar" in failed.message
    assert "tablespace" in failed.hint
    assert not folder.exists()


def test_a_tar_that_never_comes(near: Any, keys: Any, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    argv = [sys.executable, "-c", BASEBACKUP, str(folder), "base"]
    sources = [
        Source(name=f"{name}.tar.zst.age", kind="fifo", path=f"{folder}/{name}.tar", hint=name)
        for name in ("base", "16400")
    ]
    failed = near.run(seal_job(near, keys, argv, *sources, secret="the password")).failed
    assert failed.code == "child-failed"
    assert "never wrote" in failed.message
    assert failed.hint == "16400"


# --- what goes wrong while sealing ---------------------------------------------------------------


def test_a_child_that_fails(near: Any, keys: Any) -> None:
    shell = "read -r secret; echo data; echo no route to $secret >&2; exit 3"
    outcome = near.run(seal_job(near, keys, ["bash", "-c", shell], secret="hunter2"))
    assert outcome.failed.code == "child-failed"
    assert "ended with code 3: no route to ***" in outcome.failed.message
    assert not outcome.of(VolumeSealed), "what is not whole must not be completed"


def test_no_secret_of_a_child_is_told(near: Any, keys: Any) -> None:
    line = r'password="hunter2 \"x\""'  # as of an option file
    shell = 'read -r line; set -x; : "$line" \'hunter2 "x"\' PGPASSWORD=other; exit 3'
    failed = near.run(seal_job(near, keys, ["bash", "-c", shell], secret=line)).failed
    assert "hunter2" not in failed.message
    assert "other" not in failed.message


def test_no_part_of_a_secret_begins_the_last_words_of_a_child(near: Any, keys: Any) -> None:
    loop = "for i in $(seq 2000); do printf '%s ' \"$line\" >&2; done"
    cut = f"read -r line; echo data; {loop}; exit 3"
    failed = near.run(seal_job(near, keys, ["bash", "-c", cut], secret="hunter22")).failed
    assert set(failed.message.partition(": ")[2].split()) <= {"***", "**", "*"}


def test_a_child_that_is_missing(near: Any, keys: Any) -> None:
    failed = near.run(seal_job(near, keys, ["/nonexistent/pg_basebackup"])).failed
    assert (failed.code, failed.host_errno) == ("tool-missing", 2)


def test_a_store_that_is_gone_is_transient(near: Any, keys: Any, noise: Path) -> None:
    near._part_url = lambda _key, _number: "https://127.0.0.1:9/sets/it?X-Amz-Signature=sesame"
    outcome = near.run(seal_job(near, keys, ["cat", str(noise)]))
    assert (outcome.failed.code, outcome.failed.kind) == ("network", "transient")
    assert "sesame" not in str(outcome.events) + outcome.stderr


def test_a_store_whose_certificate_is_not_the_pinned_cas(
    near: Any, s3_far: Any, keys: Any, noise: Path
) -> None:
    job = seal_job(near, keys, ["cat", str(noise)])
    failed = near.run(SealJob(**{**_fields(job), "ca_pem": s3_far.ca_pem})).failed
    assert (failed.code, failed.kind) == ("network", "permanent")
    assert "not trusted" in failed.message
    failed = near.run(SealJob(**{**_fields(job), "ca_pem": None})).failed
    assert "not trusted" in failed.message


def _fields(job: Any) -> dict[str, Any]:
    return {name: getattr(job, name) for name in type(job).__dataclass_fields__}


@pytest.mark.parametrize("end", ["eof", "term", "kill"])
def test_an_orchestrator_that_dies_takes_all_along(
    near: Any, keys: Any, tmp_path: Path, end: str
) -> None:
    token = f"token-{tmp_path.name}"
    folder = tmp_path / "folder"
    shell = f"mkdir {folder}; cat /dev/zero > {folder}/base.tar & sleep 1000 # {token}"
    source = Source(name="base.tar.zst.age", kind="fifo", path=f"{folder}/base.tar")
    run = near.start(seal_job(near, keys, ["bash", "-c", f"sleep 0.2; {shell}"], source))
    while not run.outcome.of(PutLease) and not run.outcome.of(Progress):
        time.sleep(0.05)
        assert run.process.poll() is None
    if end == "eof":
        run.stdin.close()
    else:
        getattr(run.process, {"term": "terminate", "kill": "kill"}[end])()
    started = time.monotonic()
    code = run.process.wait(10)
    assert time.monotonic() - started < 3
    assert code != 0
    assert gone(token)
    if end != "kill":
        assert run.wait().failed.code == "aborted"
        assert not folder.exists()


# --- what goes wrong while opening ---------------------------------------------------------------


def spoil(near: Any, key: str, change: Any) -> None:
    path = near.path(key)
    data = bytearray(path.read_bytes())
    path.write_bytes(change(data))


def flip(data: bytearray) -> bytearray:
    data[6 * MIB] ^= 1
    return data


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (flip, "object-corrupt", "part 2: its SHA-256"),
        (lambda data: data[: 7 * MIB], "object-corrupt", "part 2: shorter"),
        (lambda data: data[: 5 * MIB], "object-corrupt", "part 2: shorter"),
        (lambda data: data[:10], "object-corrupt", "part 1: shorter"),
    ],
)
def test_a_spoiled_object(
    near: Any, keys: Any, noise: Path, tmp_path: Path, change: Any, code: str, words: str
) -> None:
    sealed = sealed_file(near, keys, noise)
    spoil(near, sealed.volumes[0].key, change)
    target = tmp_path / "target" / "file"
    failed = near.run(open_job(near, keys, sealed, FileTarget(path=str(target)))).failed
    assert (failed.code, failed.kind) == (code, "permanent")
    assert words in failed.message
    assert not list(target.parent.iterdir())


def test_a_missing_object(near: Any, keys: Any, noise: Path, tmp_path: Path) -> None:
    sealed = sealed_file(near, keys, noise)
    near.store.client.delete_object(
        Bucket=near.store.bucket, Key=f"{near.prefix}/{sealed.volumes[0].key}"
    )
    failed = near.run(open_job(near, keys, sealed, TarTarget(directory=str(tmp_path / "t")))).failed
    assert (failed.code, failed.kind) == ("object-missing", "permanent")


def test_a_wrong_identity(near: Any, keys: Any, noise: Path, tmp_path: Path) -> None:
    sealed = sealed_file(near, keys, noise)
    target = FileTarget(path=str(tmp_path / "t" / "file"))
    other = generate_identity()
    outcome = near.run(open_job(near, keys, sealed, target, identity=other))
    assert outcome.failed.code == "age-no-identity"
    assert other not in str(outcome.events) + outcome.stderr
    assert not list((tmp_path / "t").iterdir())


def test_a_url_that_is_refused(near: Any, keys: Any, noise: Path, tmp_path: Path) -> None:
    sealed = sealed_file(near, keys, noise)
    near.spoil = lambda url: url.replace("X-Amz-Signature=", "X-Amz-Signature=0")
    failed = near.run(open_job(near, keys, sealed, TarTarget(directory=str(tmp_path / "t")))).failed
    assert failed.code == "url-expired"
    assert "X-Amz" not in failed.message


def test_a_url_that_expired_is_asked_for_again(
    near: Any, keys: Any, noise: Path, tmp_path: Path
) -> None:
    sealed = sealed_file(near, keys, noise)
    given: list[str] = []

    def once(url: str) -> str:
        given.append(url)
        return url if len(given) > 1 else url.replace("X-Amz-Signature=", "X-Amz-Signature=0")

    near.spoil = once
    target = FileTarget(path=str(tmp_path / "t" / "file"))
    near.run(open_job(near, keys, sealed, target)).done  # noqa: B018
    assert len(given) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", path]).returncode != 0:
        pytest.skip("mounting is not allowed here")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("kind", ["file", "tar"])
def test_a_full_disk(near: Any, keys: Any, noise: Path, small_disk: Path, kind: str) -> None:
    argv = ["cat", str(noise)] if kind == "file" else ["tar", "-cC", str(noise.parent), noise.name]
    sealed = near.run(seal_job(near, keys, argv)).done.result.objects[0]
    if kind == "file":
        target: Any = FileTarget(path=str(small_disk / "file"))
    else:
        target = TarTarget(directory=str(small_disk / "tree"))
    failed = near.run(open_job(near, keys, sealed, target)).failed
    assert (failed.code, failed.kind, failed.host_errno) == ("no-space", "permanent", 28)
    assert str(small_disk) in failed.message or kind == "tar"
    if kind == "file":
        assert not list(small_disk.iterdir())


def test_tar_dies_with_its_agent(near: Any, keys: Any, noise: Path, tmp_path: Path) -> None:
    argv = ["tar", "-cC", str(noise.parent), noise.name]
    sealed = near.run(seal_job(near, keys, argv)).done.result.objects[0]
    target = tmp_path / "a-place-of-its-own"
    asked = threading.Event()
    near.answer = lambda _event: asked.set()  # and never says a URL
    run = near.start(open_job(near, keys, sealed, TarTarget(directory=str(target))))
    assert asked.wait(10)
    time.sleep(0.3)
    run.stdin.close()
    assert run.process.wait(5) != 0
    assert gone(str(target))


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.slow(20)
@pytest.mark.parametrize("filler", ["/dev/urandom", "/dev/zero"])
def test_memory_is_the_same_at_any_size(near: Any, keys: Any, tmp_path: Path, filler: str) -> None:
    peaks: dict[str, list[int]] = {"seal": [], "open": []}
    for size in (100, 1000):
        argv = ["head", "-c", f"{size}000000", filler]
        sealed = near.run(seal_job(near, keys, argv, part_size=16 * MIB)).done
        target = tmp_path / "file"
        job = open_job(near, keys, sealed.result.objects[0], FileTarget(path=str(target)))
        opened = near.run(job).done
        assert target.stat().st_size == size * 1_000_000
        target.unlink()
        peaks["seal"].append(sealed.peak_rss)
        peaks["open"].append(opened.peak_rss)
    for small, large in peaks.values():
        assert large <= 256 * MIB
        assert abs(large - small) <= small / 4, peaks
