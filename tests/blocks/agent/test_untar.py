"""Archives that lie: nothing but plain files and directories below the target gets through."""

import hashlib
import io
import os
import subprocess
import tarfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.agent.failure import JobFailed
from blocks.agent.jobs.open import _TAR
from blocks.agent.protocol.parts import FileTarget, TarTarget
from blocks.agent.untar import CheckedTar
from blocks.artifact import age
from blocks.artifact.objects import Part, SealedObject, Volume
from tests.blocks.agent.jobs.test_seal_open import open_job, seal_job, sealed_file

MIB = 2**20
LINKS = "pg_tblspc/[0-9]+"


def member(name: str, body: bytes = b"", **more: Any) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + body + bytes(-len(body) % 512)


END = bytes(1024)


def cleaned(data: bytes, step: int = 700) -> bytes:
    out = io.BytesIO()
    checked = CheckedTar(out.write, "base.tar", LINKS)
    for first in range(0, len(data), step):
        checked.write(data[first : first + step])
    checked.finish()
    return out.getvalue()


def extracted(data: bytes, place: Path) -> set[str]:
    place.mkdir()
    subprocess.run([*_TAR, "-C", str(place)], input=data, check=True)
    return {str(path.relative_to(place)) for path in place.rglob("*")}


@pytest.mark.parametrize(
    "hostile",
    [
        member("/etc/cron.d/evil", b"x"),
        member("../evil", b"x"),
        member("base/../../evil", b"x"),
        member("pg_wal", type=tarfile.SYMTYPE, linkname="/var/lib/postgresql/15/main/pg_wal"),
        member("base", type=tarfile.SYMTYPE, linkname="global"),
        member("base/1", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("pg_tblspc/../evil", type=tarfile.SYMTYPE, linkname="/"),
        member("pg_tblspc/x", type=tarfile.SYMTYPE, linkname="/"),
        member("pg_tblspc/1/x", type=tarfile.SYMTYPE, linkname="/"),
        member("pg_tblspc/1", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        member("null", type=tarfile.CHRTYPE),
        member("disk", type=tarfile.BLKTYPE),
        member("pipe", type=tarfile.FIFOTYPE),
        member("base/su", b"x", mode=0o4755),
        member("base/sg", b"x", mode=0o2755),
        member("a" * 120, b"x"),  # a GNU long name: no data directory has one
        member("sparse", b"x", type=tarfile.GNUTYPE_SPARSE),
        member("other", b"\n", type=tarfile.XHDTYPE),
        b"x" * 512,
        END + member("after the end", b"x"),
    ],
)
def test_what_no_backup_holds_is_refused(hostile: bytes) -> None:
    with pytest.raises(JobFailed) as caught:
        cleaned(member("global/pg_control", b"fine") + hostile + END)
    assert caught.value.code == "object-corrupt"
    assert "base.tar" in caught.value.message


@pytest.mark.parametrize("cut", [END, END + bytes(100), b"", member("x", b"y" * 2000)[:1000]])
def test_an_archive_that_is_cut_off(cut: bytes) -> None:
    data = member("global/pg_control", b"fine") + cut
    if cut == END:
        cleaned(data)
        return
    with pytest.raises(JobFailed, match="cut off"):
        cleaned(data)


def test_what_pg_basebackup_sends_comes_through(tmp_path: Path) -> None:
    """Its links to tablespaces are left out: the restore makes its own."""
    data = (
        member("backup_label", b"label", mode=0o600, uid=70, uname="postgres")
        + member("./base/", type=tarfile.DIRTYPE, mode=0o42700)
        + member("base/1", os.urandom(3000), mode=0o640)
        + member("pg_tblspc", type=tarfile.DIRTYPE, mode=0o700)
        + member("pg_tblspc/16400", type=tarfile.SYMTYPE, linkname="/fast/PG_15")
        + member("global/pg_control", b"last")
        + END
        + bytes(9216)
    )
    found = extracted(cleaned(data), tmp_path / "place")
    assert found == {"backup_label", "base", "base/1", "pg_tblspc", "global", "global/pg_control"}
    assert (tmp_path / "place" / "global" / "pg_control").read_bytes() == b"last"
    assert (tmp_path / "place" / "backup_label").stat().st_uid == os.geteuid()
    assert (tmp_path / "place" / "base").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("name", ["pg_tblspc/1", ".", "./", "a"])
def test_no_link_is_left_out_unasked(name: str) -> None:
    checked = CheckedTar(io.BytesIO().write, "base.tar")
    with pytest.raises(JobFailed, match="is a link"):
        checked.write(member(name, type=tarfile.SYMTYPE, linkname="/"))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "../x", "/x", "pg_wal", "./b/c", "pg_tblspc/1", "d/../../e"]),
            st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"L", b"x", b"S", b"\0"]),
            st.sampled_from(["", "/tmp", "..", "a"]),
        ),
        max_size=5,
    )
)
def test_no_header_that_is_handed_on_leads_out(members: list[tuple[str, bytes, str]]) -> None:
    data = b"".join(member(name, type=kind, linkname=link) for name, kind, link in members)
    out = io.BytesIO()
    checked = CheckedTar(out.write, "it", LINKS)
    with suppress(JobFailed):
        checked.write(data + END)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue() + END)) as archive:
        for info in archive:
            assert info.isreg() or info.isdir()
            assert not info.name.startswith("/")
            assert ".." not in info.name.split("/")


def test_a_restore_refuses_such_an_archive(near: Any, keys: Any, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "base").mkdir(parents=True)
    outside = tmp_path / "another cluster"
    outside.mkdir()
    (tree / "pg_wal").symlink_to(outside)
    sealed = near.run(seal_job(near, keys, ["tar", "-cC", str(tree), "."])).done.result.objects[0]
    target = tmp_path / "target"
    failed = near.run(open_job(near, keys, sealed, TarTarget(directory=str(target)))).failed
    assert (failed.code, failed.kind) == ("object-corrupt", "permanent")
    assert "pg_wal" in failed.message
    assert not (target / "pg_wal").is_symlink()
    assert not list(outside.iterdir())


def test_no_more_comes_out_than_went_in(near: Any, keys: Any, tmp_path: Path) -> None:
    """A bomb is stopped at the manifest's size, before it fills the disk."""
    (tmp_path / "zeros").write_bytes(bytes(40 * MIB))
    sealed = replace(sealed_file(near, keys, tmp_path / "zeros"), raw_bytes=MIB)
    target = tmp_path / "target" / "file"
    failed = near.run(open_job(near, keys, sealed, FileTarget(path=str(target)))).failed
    assert failed.code == "object-corrupt"
    assert f"more than {MIB}" in failed.message
    sealed = near.run(seal_job(near, keys, ["tar", "-cC", str(tmp_path), "zeros"])).done
    sealed = replace(sealed.result.objects[0], raw_bytes=MIB)
    tree = TarTarget(directory=str(tmp_path / "tree"))
    assert near.run(open_job(near, keys, sealed, tree)).failed.code == "object-corrupt"


def test_a_window_that_would_take_all_memory(near: Any, keys: Any, tmp_path: Path) -> None:
    wide = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, enable_ldm=True)
    zeros = bytes(MIB)
    compressor = zstandard.ZstdCompressor(compression_params=wide).compressobj()
    bomb = b"".join([*(compressor.compress(zeros) for _ in range(160)), compressor.flush()])
    sealed = resealed(near, keys, bomb, 160 * MIB)
    failed = near.run(
        open_job(near, keys, sealed, FileTarget(path=str(tmp_path / "t" / "file")))
    ).failed
    assert failed.code == "object-corrupt"


def resealed(near: Any, keys: Any, compressed: bytes, raw_bytes: int) -> SealedObject:
    """An object of foreign zstd data, sealed to the right recipient."""
    recipient = age.parse_recipient(keys.recipient)
    body = b"".join(bytes(piece) for piece in age.encrypt(iter([compressed]), [recipient]))
    near.store.client.put_object(
        Bucket=near.store.bucket, Key=f"{near.prefix}/bomb.zst.age", Body=body
    )
    part = Part(bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
    volume = Volume(key="bomb.zst.age", bytes=len(body), parts=(part,))
    return SealedObject("bomb.zst.age", raw_bytes, len(body), (volume,))
