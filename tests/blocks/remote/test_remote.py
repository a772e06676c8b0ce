"""The agent carried to both kinds of host, with a real store: every job from this side."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from blocks.agent import marks, stamp
from blocks.agent.protocol.events import (
    Answer,
    GetLease,
    Ok,
    PartLanded,
    Prepare,
    PutLease,
    PutObjectLease,
    Stored,
    VolumeSealed,
)
from blocks.agent.protocol.jobs import (
    ClaimJob,
    CopyJob,
    FactsJob,
    FollowJob,
    OpenJob,
    ProbeJob,
    SealJob,
)
from blocks.agent.protocol.parts import FileTarget, Landed, OpenItem, Source
from blocks.agent.protocol.results import CopyResult, FollowResult, OpenResult, SealResult
from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.objects import Part, SealedObject
from blocks.engines.postgres.wal import FILES
from blocks.errors import FarsideError, PermanentError, TransientError
from blocks.hosts.host import Host
from blocks.hosts.local import LocalHost
from blocks.ownership import Belongings
from blocks.remote.failures import AgentFailed, AgentInterrupted
from blocks.remote.folder import WorkDirUntrusted, work_folder
from blocks.remote.jobs import (
    TargetOccupied,
    claim,
    facts_of,
    kill_started,
    probe_from,
    run_program,
    sweep_host,
)
from blocks.remote.leases import CopyLeases, Question, StoreLeases
from blocks.remote.run import AgentRun, AgentThread, run_job
from blocks.stores.s3 import S3Store
from tests.blocks.remote import counting

ID = "postgres-20260102T030405Z-abcd"
IDENTITY = generate_identity()
PART = 1 << 20
NAME = "base.tar.zst.age"


@pytest.fixture
def box(host: Host, tmp_path: Path) -> Host:
    """The host, with a work directory and the Python of this environment."""
    return host.model_copy(update={"work_dir": str(tmp_path / "work"), "python": sys.executable})


@pytest.fixture
def here(tmp_path: Path) -> LocalHost:
    return LocalHost(work_dir=str(tmp_path / "work"), python=sys.executable)


@pytest.fixture
def stores(s3_server: Any) -> Iterator[tuple[S3Store, S3Store]]:
    """Two buckets, a folder of this test in each."""
    prefix = uuid.uuid4().hex
    made = [s3_server.store(bucket=bucket, prefix=prefix) for bucket in ("one", "two")]
    yield made[0], made[1]
    for store in made:
        store.close()


def seal_job(store: S3Store, command: str) -> SealJob:
    return SealJob(
        argv=("sh", "-c", command),
        sources=(Source(name=NAME, kind="stdout"),),
        recipients=(recipient_of(IDENTITY),),
        part_size=PART,
        volume_parts=3,
        ca_pem=store.ca_pem,
    )


def sealed(host: Host, store: S3Store, data: bytes, folder: Path) -> tuple[SealedObject, ...]:
    (folder / "data").write_bytes(data)
    result = run_job(host, ID, seal_job(store, f"cat {folder}/data"), StoreLeases(store, "set/"))
    assert isinstance(result, SealResult)
    return result.objects


class TestWorkFolder:
    def test_is_private(self, box: Host) -> None:
        path = Path(work_folder(box, ID))
        assert path == Path(box.work_root) / ID
        assert path.stat().st_mode & 0o777 == 0o700
        assert work_folder(box, ID) == str(path)

    def test_the_sweep_finds_it(self, box: Host) -> None:
        path = Path(work_folder(box, ID))
        found = sweep_host(box, None, remove=False).found
        assert [left.rehearsal_id for left in found] == [ID]
        assert path.exists()
        assert sweep_host(box, ID, remove=True).remaining == ()
        assert not path.exists()
        assert sweep_host(box, ID, remove=True).found == ()

    @pytest.mark.parametrize("which", ["root", "id", "marker"])
    def test_what_others_can_write_to_is_refused(self, box: Host, which: str) -> None:
        path = Path(work_folder(box, ID))
        place = {"root": path.parent, "id": path, "marker": path / marks.FILE}[which]
        place.chmod(0o777)
        with pytest.raises(WorkDirUntrusted):
            work_folder(box, ID)
        with pytest.raises(AgentFailed) as refused:
            sweep_host(box, None, remove=True)
        assert refused.value.code == "untrusted"
        assert path.exists()
        place.chmod(0o700)

    def test_a_link_on_the_way_is_refused(self, box: Host, tmp_path: Path) -> None:
        path = Path(work_folder(box, ID))
        (tmp_path / "link").symlink_to(path.parent)
        linked = box.model_copy(update={"work_dir": str(tmp_path / "link")})
        linked._work_root = ""
        with pytest.raises(WorkDirUntrusted, match="link"):
            work_folder(linked, ID)


class TestSmallJobs:
    def test_facts_of_where_a_host_looks_to(self, box: Host, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "real").write_text("#!/bin/sh\necho real 1.0\n")
        (elsewhere / "real").chmod(0o755)
        (tmp_path / "linked").symlink_to(elsewhere / "real")
        (tmp_path / "a.conf").write_text("# nothing\nhost = 10.9.8.7\nsecret = hush\n")
        (tmp_path / "b.conf").write_text("see db.old.example and 10.8.8.8\n")
        job = FactsJob(
            tools=(str(tmp_path / "linked"), "sh"),
            names=("localhost", "no-such-name.invalid"),
            files=(f"{tmp_path}/*.conf", f"{tmp_path}/nothing"),
            foreign=Belongings(networks=("10.9.0.0/16",), suffixes=("old.example",)),
        )
        facts = facts_of(box, ID, job)
        linked, shell = facts.tools
        assert linked.real == str(elsewhere / "real")
        assert (linked.version or "").startswith("sha256:"), "a site's program is not run"
        assert shell.real
        local, nowhere = facts.names
        assert "127.0.0.1" in local.addresses
        assert nowhere.addresses == ()
        assert [(Path(m.path).name, m.line, m.text) for m in facts.mentions] == [
            ("a.conf", 2, "10.9.8.7"),
            ("b.conf", 1, "db.old.example"),
        ]
        assert "hush" not in repr(facts)

    def test_what_is_beyond_a_limit_is_told(self, box: Host, tmp_path: Path) -> None:
        (tmp_path / "long.conf").write_text("x" * 2**20 + " 10.9.8.7")
        (tmp_path / "exact.conf").write_text("x" * 2**20)
        names = tuple(f"no{number}.invalid" for number in range(302))
        job = FactsJob(
            names=names,
            files=(f"{tmp_path}/*.conf",),
            foreign=Belongings(networks=("10.9.0.0/16",)),
        )
        facts = facts_of(box, ID, job)
        assert facts.cut == (str(tmp_path / "long.conf"),)
        assert (len(facts.names), facts.more_names) == (300, 2)

    def test_facts(self, box: Host, tmp_path: Path) -> None:
        job = FactsJob(
            work_dir=box.work_dir, directories=(str(tmp_path / "new"),), tools=("sh", "no-tool")
        )
        facts = facts_of(box, ID, job)
        assert abs(facts.time - time.time()) < 5
        assert facts.modules["cryptography"]
        assert [tool.path is not None for tool in facts.tools] == [True, False]
        assert facts.directories[0].exists is False

    def test_probe(self, box: Host, s3_server: Any) -> None:
        endpoints = (("127.0.0.1", s3_server.port), ("127.0.0.1", 1))
        assert probe_from(box, ID, ProbeJob(endpoints=endpoints)) == ("open", "refused")

    def test_what_is_claimed_is_swept(self, box: Host, tmp_path: Path) -> None:
        made = tmp_path / "data"
        work_folder(box, ID)
        job = ClaimJob(work_dir=box.work_root, rehearsal_id=ID, token="t", directories=(str(made),))
        claim(box, job)
        with pytest.raises(TargetOccupied):
            claim(box, replace(job, rehearsal_id=ID, token="u"))
        found = sweep_host(box, ID, remove=True).found
        assert str(made) in found[0].paths
        assert not made.exists()


class TestProgram:
    """An engine's own module, brought with the agent."""

    def ask(self, box: Host, script: str) -> counting.Counts:
        words = counting.Words(argv=("sh", "-c", script), secret="hunter2")
        return run_program(box, ID, "counting", counting.run, words)

    def test_it_answers(self, box: Host) -> None:
        counts = self.ask(box, 'read -r line; echo a b a; [ "$line" = hunter2 ] && echo known')
        assert counts.words == {"a": 2, "b": 1, "known": 1}
        assert counts.arguments.split()[-2:] == [ID, "counting"]
        assert "hunter2" not in counts.arguments
        # Of its packages it has the names alone: what they import, no host needs to have.
        assert "tests.blocks.remote" in counts.imported
        assert not {"pytest", "pydantic", "blocks.remote"} & set(counts.imported)

    def test_it_fails_by_its_name(self, box: Host) -> None:
        with pytest.raises(AgentFailed, match="no words") as failed:
            self.ask(box, "read -r line")
        assert (failed.value.operation, failed.value.host) == ("counting", box.name)
        assert failed.value.code == "child-failed"

    def test_an_answer_of_another_shape(self, box: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(counting.run.__annotations__, "return", counting.Words)
        with pytest.raises(PermanentError, match=r"it answers otherwise: .*unknown"):
            self.ask(box, "echo a")


class TestData:
    def test_there_and_back(
        self, box: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        east, west = stores
        data = os.urandom(5 * PART + 12345)
        moved: dict[str, int] = {}

        def note(count: int, name: str) -> None:
            moved[name] = count

        objects = sealed(box, east, data, tmp_path)
        assert [len(volume.parts) for volume in objects[0].volumes] == [3, 3]
        copy = CopyJob(objects=objects, ca_source=east.ca_pem, ca_target=west.ca_pem)
        result = run_job(box, ID, copy, CopyLeases(east, west, "set/"), note)
        assert isinstance(result, CopyResult)
        assert result.copied_bytes == moved[NAME] == objects[0].sealed_bytes
        target = FileTarget(path=str(tmp_path / "back"))
        job = OpenJob(
            items=(OpenItem(object=objects[0], target=target),),
            identity=IDENTITY,
            ca_pem=west.ca_pem,
        )
        with AgentRun(box, ID, job, StoreLeases(west, "set/")) as run:
            done = run.run()
        assert isinstance(done.result, OpenResult)
        assert done.result.raw_bytes == len(data)
        assert done.peak_rss > 0
        assert run.steps
        assert (tmp_path / "back").read_bytes() == data

    def test_copy_resumes(
        self, here: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        east, west = stores
        objects = sealed(here, east, os.urandom(5 * PART), tmp_path)

        class Breaking(CopyLeases):
            """The orchestrator fails at the fourth part: they land in no certain order."""

            broken = False

            def landed_part(self, event: PartLanded) -> None:
                super().landed_part(event)
                if not self.broken and len(self.landed) == 4:
                    self.broken = True
                    raise TransientError("broken off")

        leases = Breaking(east, west, "set/")

        def copy() -> CopyResult:
            job = CopyJob(
                objects=objects,
                landed=leases.landed,
                parallel=1,
                ca_source=east.ca_pem,
                ca_target=west.ca_pem,
            )
            result = run_job(here, ID, job, leases)
            assert isinstance(result, CopyResult)
            return result

        with pytest.raises(TransientError, match="broken off"):
            copy()
        again = copy()
        assert again.skipped_bytes >= 3 * PART
        assert again.copied_bytes + again.skipped_bytes == objects[0].sealed_bytes
        for volume in objects[0].volumes:
            assert west.get(f"set/{volume.key}") == east.get(f"set/{volume.key}")
        # A third time, everything has landed: nothing is copied, and nothing fails.
        assert copy().copied_bytes == 0

    def test_an_upload_that_the_store_lost_is_copied_anew(
        self, here: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        east, west = stores
        objects = sealed(here, east, os.urandom(PART), tmp_path)
        leases = CopyLeases(east, west, "set/")
        for volume, made in enumerate(objects[0].volumes):
            for part in range(1, len(made.parts) + 1):
                leases.landed_part(PartLanded(object=NAME, volume=volume, part=part, etag='"gone"'))
        for attempt in range(2):
            job = CopyJob(
                objects=objects,
                landed=leases.landed,
                ca_source=east.ca_pem,
                ca_target=west.ca_pem,
            )
            if attempt == 0:
                with pytest.raises(AgentInterrupted, match="must be copied again"):
                    run_job(here, ID, job, leases)
            else:
                run_job(here, ID, job, leases)
        key = f"set/{objects[0].volumes[0].key}"
        assert west.get(key) == east.get(key)

    def test_a_program_that_fails(self, box: Host, stores: tuple[S3Store, S3Store]) -> None:
        command = "head -c 3000000 /dev/urandom; echo server closed the connection >&2; exit 1"
        with pytest.raises(AgentFailed, match="server closed the connection") as caught:
            run_job(box, ID, seal_job(stores[0], command), StoreLeases(stores[0], "set/"))
        assert caught.value.code == "child-failed"
        assert caught.value.host == box.name
        assert list(stores[0].objects("set/")) == []

    def test_an_object_that_is_gone(
        self, box: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        objects = sealed(box, stores[0], b"data", tmp_path)
        stores[0].remove([f"set/{objects[0].volumes[0].key}"])
        target = FileTarget(path=str(tmp_path / "back"))
        job = OpenJob(
            items=(OpenItem(object=objects[0], target=target),),
            identity=IDENTITY,
            ca_pem=stores[0].ca_pem,
        )
        with pytest.raises(AgentFailed) as caught:
            run_job(box, ID, job, StoreLeases(stores[0], "set/"))
        assert (caught.value.code, caught.value.finding) == ("object-missing", "object-missing")
        assert IDENTITY not in f"{caught.value!r} {caught.value} {job!r}"

    def test_leaving_ends_the_job_and_its_program(
        self, box: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        job = seal_job(stores[0], f"echo $$ > {tmp_path}/pid; exec sleep 600")

        with AgentRun(box, ID, job, StoreLeases(stores[0], "set/")) as run:
            run._say(job)
            while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
                time.sleep(0.02)
        pid = int((tmp_path / "pid").read_text())
        give_up = time.monotonic() + 5
        while Path(f"/proc/{pid}").exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        assert not Path(f"/proc/{pid}").exists()


RECEIVER = """
i=1
while :; do
    head -c 65536 /dev/urandom > {folder}/00000001000000000000000$i.tmp
    mv {folder}/00000001000000000000000$i.tmp {folder}/00000001000000000000000$i
    i=$((i + 1)); [ $i = 4 ] && exec sleep 600
done
"""


class TestThread:
    def job(self, store: S3Store, folder: Path, script: str = RECEIVER) -> FollowJob:
        return FollowJob(
            argv=("sh", "-c", script.format(folder=folder)),
            directory=str(folder),
            files=FILES,
            recipients=(recipient_of(IDENTITY),),
            interval_seconds=0.2,
            ca_pem=store.ca_pem,
        )

    def test_follow_and_stop(
        self, box: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        stored: list[Stored] = []
        leases = StoreLeases(stores[0], "set/", on_stored=stored.append)
        thread = AgentThread(box, ID, self.job(stores[0], tmp_path / "wal"), leases)
        give_up = time.monotonic() + 20
        while len(stored) < 3 and time.monotonic() < give_up:
            thread.check()
            time.sleep(0.05)
        done = thread.stop()
        assert isinstance(done.result, FollowResult)
        assert done.result.stored == len(stored) == 3
        for event in stored:
            assert event.object.plain
            assert stores[0].get(f"set/{event.object.name}")

    def test_what_ends_it_is_told(
        self, box: Host, stores: tuple[S3Store, S3Store], tmp_path: Path
    ) -> None:
        job = self.job(stores[0], tmp_path / "wal", "echo no such slot >&2; exit 1")
        thread = AgentThread(box, ID, job, StoreLeases(stores[0], "set/"))
        thread._thread.join(20)
        with pytest.raises((AgentFailed, AgentInterrupted), match="no such slot"):
            thread.check()

    def test_abandon(self, box: Host, stores: tuple[S3Store, S3Store], tmp_path: Path) -> None:
        thread = AgentThread(
            box, ID, self.job(stores[0], tmp_path / "wal"), StoreLeases(stores[0], "set/")
        )
        began = time.monotonic()
        thread.abandon()
        thread.abandon()
        assert time.monotonic() - began < 3
        assert not thread._thread.is_alive()


@dataclass
class Refusing:
    """Leases that raise what is to come, in its order, and then answer."""

    to_come: list[FarsideError]

    def answer(self, question: Question) -> Answer:  # noqa: ARG002 (a stand-in)
        if self.to_come:
            raise self.to_come.pop(0)
        return Ok()

    def landed_part(self, event: PartLanded) -> None: ...

    def failed(self) -> None: ...


class TestPatience:
    """A store that cannot answer now does not end a job of hours."""

    def answer(self, here: Host, *to_come: FarsideError) -> list[float]:
        """Have a question answered; the pauses that were made."""
        pauses: list[float] = []
        run = AgentRun(here, ID, FactsJob(), Refusing(list(to_come)))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run._killed, "wait", pauses.append)
            assert run._answer(Prepare()) == Ok()
        return pauses

    def test_what_may_pass_is_asked_again_ever_more_seldom(self, here: Host) -> None:
        busy = [TransientError("slow down") for _ in range(6)]
        assert self.answer(here, *busy) == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0]

    def test_but_not_for_ever(self, here: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("blocks.remote.run.PATIENCE_SECONDS", -1.0)
        with pytest.raises(TransientError, match="slow down"):
            self.answer(here, TransientError("slow down"))

    @pytest.mark.parametrize(
        "error", [PermanentError("no"), AgentInterrupted("lost", code="object-missing")]
    )
    def test_what_asking_again_cannot_help_ends_it(self, here: Host, error: FarsideError) -> None:
        with pytest.raises(type(error)):
            self.answer(here, error)

    def test_a_job_that_is_killed_asks_no_more(self, here: Host) -> None:
        leases = Refusing([TransientError("slow down")])
        run = AgentRun(here, ID, FactsJob(), leases)
        run._killed.set()
        with pytest.raises(TransientError):
            run._answer(Prepare())


class TestKillStarted:
    """A process is killed by the number in its file only if it bears the rehearsal's stamp."""

    @pytest.mark.parametrize(
        ("bears", "dies"),
        [
            (f"{ID}:token", True),
            ("", False),
            (f"{ID}-2:token", False),
            (f"x{ID}:token", False),
            (f"another {ID}:token", False),
        ],
    )
    def test_a_number(self, here: Host, bears: str, dies: bool) -> None:
        work = Path(here.work_root) / ID
        work.mkdir(parents=True)
        with subprocess.Popen(
            ["sleep", "60"], env={**os.environ, stamp.VARIABLE: bears}
        ) as started:
            try:
                (work / "server.pid").write_text(f"{started.pid}\n")
                kill_started(here, str(work), "server.pid")
                if dies:
                    assert started.wait(10) == -9
                else:
                    time.sleep(0.3)
                    assert started.poll() is None
            finally:
                started.kill()

    @pytest.mark.parametrize("said", [None, "", "none", "999999999"])
    def test_no_process(self, here: Host, said: str | None) -> None:
        work = Path(here.work_root) / ID
        work.mkdir(parents=True)
        if said is not None:
            (work / "server.pid").write_text(said)
        kill_started(here, str(work), "server.pid")


class TestTrouble:
    def test_no_python(self, box: Host) -> None:
        box = box.model_copy(update={"python": "/no/such/python3"})
        for attempt in (
            lambda: facts_of(box, ID, FactsJob()),
            lambda: sweep_host(box, None, remove=False),
        ):
            with pytest.raises(AgentFailed, match="cannot be run") as caught:
                attempt()
            assert caught.value.finding == "tool-missing"

    def test_a_shell_that_talks(self, box: Host, tmp_path: Path) -> None:
        (tmp_path / "python").write_text("#!/bin/sh\necho Welcome!\n")
        (tmp_path / "python").chmod(0o755)
        box = box.model_copy(update={"python": str(tmp_path / "python")})
        with pytest.raises(PermanentError, match=r"the agent said 'Welcome!'.*shell print"):
            facts_of(box, ID, FactsJob())

    def test_an_agent_that_dies(self, box: Host, tmp_path: Path) -> None:
        for script, kind, text in (
            ("kill -9 $$", AgentInterrupted, "was killed"),
            ("echo broken installation >&2; exit 4", AgentFailed, "code 4: broken installation"),
        ):
            (tmp_path / "python").write_text(f"#!/bin/sh\n{script}\n")
            (tmp_path / "python").chmod(0o755)
            with pytest.raises(kind, match=text):
                facts_of(
                    box.model_copy(update={"python": str(tmp_path / "python")}), ID, FactsJob()
                )

    @pytest.mark.parametrize(
        "name", ["manifest.json", "../other/base.age", "/base.age", "a/../../b.age", "x.age.00", ""]
    )
    def test_no_lease_of_what_is_no_sealed_object(self, name: str, s3_server: Any) -> None:
        leases = StoreLeases(s3_server.store(), "set/")
        part = VolumeSealed(object=name, volume=0, parts=(), etags=())
        for question in (
            PutObjectLease(object=name),
            PutLease(object=name, volume=0, first=1, count=1),
            GetLease(object="base.age", volume=0, key=name),
            part,
        ):
            with pytest.raises(PermanentError, match="no sealed object's name"):
                leases.answer(question)

    def test_a_completion_whose_answer_was_lost(self, s3_server: Any) -> None:
        """The call went through, its answer did not: asked again, there is no such upload."""
        store = s3_server.store(prefix=uuid.uuid4().hex)
        store.put("set/base.age.000", b"12345")
        event = VolumeSealed(
            object="base.age", volume=0, parts=(Part(bytes=5, sha256=""),), etags=('"x"',)
        )
        assert StoreLeases(store, "set/").answer(event) == Ok()

    def test_copy_abort_forgets_unfinished_volumes(self, s3_server: Any) -> None:
        leases = CopyLeases(s3_server.store(), s3_server.store(bucket="two"), "set/")
        leases.landed_part(PartLanded(object="a.age", volume=0, part=1, etag="e"))
        assert list(leases.landed) == [Landed(object="a.age", volume=0, part=1, etag="e")]
        leases.abort()
        assert list(leases.landed) == []
