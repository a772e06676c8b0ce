"""Farside's jobs beside the pipelines of well-known commands that do the same.

Both sides use the same server, stores and directories, and run as the same account. Farside's
seconds include carrying the agent's job through SSH, starting it, and completing the upload.
"""

import os
import shutil
from pathlib import Path
from statistics import median
from time import monotonic

from blocks.agent.protocol.jobs import CopyJob, OpenJob, SealJob
from blocks.agent.protocol.parts import OpenItem, Source, TarTarget
from blocks.agent.protocol.results import OpenResult, SealResult
from blocks.artifact.objects import SealedObject
from blocks.remote.folder import work_folder
from blocks.remote.leases import CopyLeases, StoreLeases
from deployments.lab import namespaces
from tests.benchmarks.results import Result, alternately, compare
from tests.benchmarks.world import ID, PREFIX, World

RCLONE_TUNED = "--multi-thread-streams 8 --multi-thread-cutoff 16M --multi-thread-chunk-size 16M"
RCLONE_TUNED += " --s3-chunk-size 16M --s3-upload-concurrency 8"
WAN_MBIT = 50
_BUCKET = "farside"
_SEAL = "pg_basebackup | zstd -1 | age | rclone rcat"
_OPEN = "rclone cat | age -d | zstd -d | tar x"


def snapshot(world: World, rounds: int) -> tuple[Result, SealedObject]:
    """A base backup of the running server into the source's store; also the last one sealed."""
    last: list[SealedObject] = []

    def ours(number: int) -> None:
        name = f"base{number}.tar.zst.age"
        last[:] = [seal(world, name, world.base_backup, world.password)[0]]

    def theirs(number: int) -> None:
        recipient = world.plan.keys.recipients[-1]
        backup = " ".join(f"'{word}'" for word in world.base_backup)
        target = f"east:{_BUCKET}/{PREFIX}reference{number}"
        world.run_theirs(f'{backup} | zstd -q -1 | age -r {recipient} | "$RCLONE" rcat {target}')

    own, reference = alternately(rounds, ours, theirs, before=os.sync)
    return compare("snapshot", _SEAL, last[0].raw_bytes, own, reference), last[0]


def transfer(world: World, rounds: int, sealed: SealedObject) -> list[Result]:
    """What was sealed, from the source's store to the recovery's."""
    key = f"{_BUCKET}/{PREFIX}{sealed.volumes[0].key}"

    def rclone(options: str, target: str) -> None:
        # Each time to another name: rclone leaves alone what is there already.
        target = f"west:{_BUCKET}/{PREFIX}{target}"
        world.run_theirs(f'"$RCLONE" copyto {options} east:{key} {target}')

    own, plain, tuned = alternately(
        rounds,
        lambda _number: copy(world, sealed),
        lambda number: rclone("", f"plain{number}"),
        lambda number: rclone(RCLONE_TUNED, f"tuned{number}"),
        before=os.sync,
    )
    size = sealed.volumes[0].bytes
    return [
        compare("transfer", "rclone copyto", size, own, plain),
        compare("transfer, tuned", f"rclone copyto {RCLONE_TUNED}", size, own, tuned),
    ]


def wan(world: World, rounds: int) -> Result:
    """What was sealed, over a link of 50 Mbit/s, beside what the link can carry in that time.

    The link's own bytes are counted, with the frames' headers, as `tc tbf` does.
    """
    namespaces.limit(world.sites, f"{WAN_MBIT}mbit")
    sealed, _ = seal(world, "wan.tar.zst.age", world.base_backup, world.password)
    shares, seconds = [], []
    for _ in range(rounds):
        before, started = namespaces.carried(world.sites[0]), monotonic()
        copy(world, sealed)
        seconds.append(monotonic() - started)
        carried = namespaces.carried(world.sites[0]) - before
        shares.append(carried * 8 / (WAN_MBIT * 1e6) / seconds[-1])
    size = sealed.volumes[0].bytes
    return Result(
        name="wan",
        meaning=f"share of a link of {WAN_MBIT} Mbit/s that a transfer uses",
        ratio=median(shares),
        lowest=min(shares),
        highest=max(shares),
        farside=f"{size * 8 / median(seconds) / 1e6:.1f} Mbit/s of content",
        reference=f"{WAN_MBIT} Mbit/s",
        details={"bytes": size, "farside_seconds": seconds},
    )


def restore(world: World, rounds: int, sealed: SealedObject) -> Result:
    """What was copied, out of the recovery's store into a data directory."""
    place = world.recovered()
    targets = {name: place / f"benchmark-{name}" for name in ("farside", "reference")}

    def clear() -> None:
        for target in targets.values():
            if target.exists():
                shutil.rmtree(target)
        targets["reference"].mkdir()
        world.account.own(targets["reference"])
        os.sync()

    def theirs(_number: int) -> None:
        key = f"west:{_BUCKET}/{PREFIX}{sealed.volumes[0].key}"
        world.run_theirs(
            f'"$RCLONE" cat {key} | age -d -i "$IDENTITY" | zstd -q -d'
            f" | tar x -C '{targets['reference']}'"
        )

    own, reference = alternately(
        rounds,
        lambda _number: unpack(world, sealed, targets["farside"]),
        theirs,
        before=clear,
    )
    clear()
    return compare("restore", _OPEN, sealed.raw_bytes, own, reference)


def seal(
    world: World, name: str, argv: tuple[str, ...], password: str | None
) -> tuple[SealedObject, int]:
    """What `argv` prints, sealed into the source's store; and the agent's peak memory in bytes."""
    store, host = world.plan.source.store, world.plan.source.host("backup")
    job = SealJob(
        argv=argv if password is None else (argv[0], "-W", *argv[1:]),
        sources=(Source(name=name, kind="stdout"),),
        recipients=(world.plan.keys.recipients[-1],),
        secret=password,
        ca_pem=store.ca_pem,
        marker=work_folder(host, ID),
    )
    done = world.run_ours(world.plan.source, "backup", job, StoreLeases(store, PREFIX))
    assert isinstance(done.result, SealResult)
    return done.result.objects[0], done.peak_rss


def copy(world: World, sealed: SealedObject) -> int:
    """Copy to the recovery's store; the agent's peak memory in bytes."""
    source, target = world.plan.source.store, world.plan.recovery.store
    job = CopyJob(objects=(sealed,), ca_source=source.ca_pem, ca_target=target.ca_pem)
    leases = CopyLeases(source, target, PREFIX)
    return world.run_ours(world.plan.recovery, "db1", job, leases).peak_rss


def unpack(world: World, sealed: SealedObject, directory: Path) -> int:
    """Open what is in the recovery's store; the agent's peak memory in bytes."""
    store = world.plan.recovery.store
    job = OpenJob(
        items=(OpenItem(object=sealed, target=TarTarget(directory=str(directory))),),
        identity=world.identity,
        ca_pem=store.ca_pem,
        marker=work_folder(world.plan.recovery.host("db1"), ID),
    )
    done = world.run_ours(world.plan.recovery, "db1", job, StoreLeases(store, PREFIX))
    assert isinstance(done.result, OpenResult)
    return done.peak_rss


def memory(world: World, size: int) -> list[Result]:
    """Peak memory of each of the three jobs at `size` bytes, relative to a tenth of that."""
    files = {count: _tree(world, count) for count in (size // 10, size)}
    peaks: dict[str, list[int]] = {"seal": [], "copy": [], "open": []}
    for count, tree in files.items():
        argv = ("tar", "-c", "-f", "-", "-C", str(tree), ".")
        sealed, peak = seal(world, f"memory{count}.tar.zst.age", argv, None)
        peaks["seal"].append(peak)
        peaks["copy"].append(copy(world, sealed))
        target = world.recovered() / "benchmark-memory"
        peaks["open"].append(unpack(world, sealed, target))
        shutil.rmtree(target)
        shutil.rmtree(tree)
    return [_growth(job, size, small, large) for job, (small, large) in peaks.items()]


def _tree(world: World, size: int) -> Path:
    """A directory with one file that compresses 2:1."""
    tree = world.folder / f"memory{size}"
    tree.mkdir()
    with (tree / "content").open("wb") as file:
        for _ in range(size >> 17):
            file.write(os.urandom(1 << 16) + bytes(1 << 16))
    return tree


def _growth(job: str, size: int, small: int, large: int) -> Result:
    ratio = large / small
    return Result(
        name=f"memory, {job}",
        meaning=f"peak at {size / 1e6:.0f} MB relative to {size / 1e7:.0f} MB",
        ratio=ratio,
        lowest=ratio,
        highest=ratio,
        farside=f"{large / 2**20:.0f} MiB",
        reference=f"{small / 2**20:.0f} MiB",
        details={"bytes": size, "peak": large, "peak_of_a_tenth": small},
    )
