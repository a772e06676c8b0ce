"""The job `seal`: run a program, and store what it writes."""

import fcntl
import os
import select
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from blocks.agent.channel import Channel
from blocks.agent.child import Child
from blocks.agent.failure import JobFailed
from blocks.agent.meter import Meter
from blocks.agent.protocol.jobs import SealJob
from blocks.agent.protocol.parts import Source
from blocks.agent.protocol.results import SealResult
from blocks.agent.scratch import temporary
from blocks.agent.transfer.http import Web
from blocks.agent.transfer.stream import SealedStream
from blocks.agent.transfer.upload import Uploads
from blocks.artifact import age

_STARTS = 5
_POLL = 0.001
_WATCH = 0.05


class _RaceLost(Exception):
    """The program made a plain file where a FIFO was to be: start it again."""


def run(job: SealJob, channel: Channel) -> SealResult:
    """Raises JobFailed."""
    for number in range(_STARTS):
        try:
            with Meter(channel) as meter:
                return _Attempt(job, channel, meter).run()
        except _RaceLost as lost:
            reason = str(lost)
            time.sleep(0.2 * number)
    raise JobFailed(
        "child-failed",
        f"{Path(job.argv[0]).name} was started {_STARTS} times, and {reason}",
        hint=job.hint,
    )


class _Attempt:
    def __init__(self, job: SealJob, channel: Channel, meter: Meter) -> None:
        self._job = job
        self._meter = meter
        self._uploads = Uploads(channel, Web(job.ca_pem), meter, job.part_size)
        recipients = [age.parse_recipient(text) for text in job.recipients]
        self._streams = {
            source.name: SealedStream(
                source.name, recipients, self._uploads, meter, job.volume_parts
            )
            for source in job.sources
        }
        self._problems: list[BaseException] = []

    def run(self) -> SealResult:
        with ExitStack() as stack:
            stack.callback(self._uploads.close)
            folder = self._folder()
            if folder is not None:
                stack.enter_context(temporary(folder))
            child = self._start()
            stack.callback(child.kill)
            threads = [self._drain(source, child) for source in self._sources("stdout")]
            if folder is not None:
                self._make_fifos(folder, child)
                threads += [self._drain(source, child) for source in self._sources("fifo")]
            self._attend(child, threads, folder)
            for source in self._sources("file"):
                self._read_file(source)
            objects = tuple(self._streams[source.name].commit() for source in self._job.sources)
        return SealResult(objects=objects)

    def _sources(self, kind: str) -> list[Source]:
        return [source for source in self._job.sources if source.kind == kind]

    def _folder(self) -> Path | None:
        """The directory that the program will make, and the FIFOs will be in."""
        folders = {_path(source).parent for source in self._sources("fifo")}
        if not folders:
            return None
        if len(folders) > 1:
            raise JobFailed("internal", "FIFOs in more than one directory")
        folder = folders.pop()
        if folder.exists():
            raise JobFailed(
                "internal",
                f"{folder} exists already; the program has to make it",
                hint="run the sweep: an earlier backup may have left it",
            )
        return folder

    def _start(self) -> Child:
        job = self._job
        printing = bool(self._sources("stdout"))
        return Child(
            job.argv,
            stdout=subprocess.PIPE if printing else subprocess.DEVNULL,
            secret=job.secret,
            cwd=job.cwd,
            marker=job.marker,
        )

    def _make_fifos(self, folder: Path, child: Child) -> None:
        """Until the directory is there, and then at once. Raises _RaceLost, JobFailed."""
        while not folder.is_dir():
            if child.ended() and not folder.is_dir():
                child.wait()
                raise JobFailed("child-failed", f"{child.name} ended, and never made {folder}")
            time.sleep(_POLL)
        for source in self._sources("fifo"):
            try:
                os.mkfifo(_path(source), 0o600)
            except FileExistsError:
                raise _RaceLost(f"each time it made {source.path} first") from None

    def _drain(self, source: Source, child: Child) -> threading.Thread:
        thread = threading.Thread(target=self._drain_safely, args=(source, child), daemon=True)
        thread.start()
        return thread

    def _drain_safely(self, source: Source, child: Child) -> None:
        try:
            if source.kind == "stdout":
                self._drain_file(source, child.stdout.fileno())
            else:
                with open(_open_fifo(source, child), "rb", buffering=0) as file:
                    self._drain_file(source, file.fileno())
        except BaseException as error:  # noqa: BLE001 (raised again by the job)
            self._problems.append(error)

    def _drain_file(self, source: Source, file: int) -> None:
        fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, 2**20)
        stream = self._streams[source.name]
        stream.drain(file)
        stream.finish()

    def _attend(self, child: Child, threads: list[threading.Thread], folder: Path | None) -> None:
        """Until all is read and the program ended well. Raises _RaceLost, JobFailed, OSError."""
        for thread in threads:
            while thread.is_alive() and not self._problems:
                thread.join(_WATCH)
                self._look_for_strays(folder)
        for problem in self._problems:
            # A child that could not write on fails too: what made us stop reading comes first.
            if not isinstance(problem, JobFailed) or problem.code != "child-failed":
                raise problem
        child.wait()
        self._look_for_strays(folder)
        if self._problems:
            raise self._problems[0]

    def _look_for_strays(self, folder: Path | None) -> None:
        if folder is None:
            return
        kinds = {_path(source).suffix for source in self._sources("fifo")}
        strays = [
            path.name for path in folder.glob("*") if path.suffix in kinds and not path.is_fifo()
        ]
        if not strays:
            return
        if not self._uploads.started:
            raise _RaceLost(f"wrote {', '.join(strays)} beside the streams that were planned")
        raise JobFailed(
            "child-failed",
            f"{', '.join(strays)} appeared beside the streams that were planned",
            hint=self._job.hint,
        )

    def _read_file(self, source: Source) -> None:
        stream = self._streams[source.name]
        try:
            with _path(source).open("rb", buffering=0) as file:
                stream.drain(file.fileno())
        except FileNotFoundError:
            raise JobFailed(
                "child-failed", f"{source.path} was not written by {self._job.argv[0]}"
            ) from None
        stream.finish()


def _open_fifo(source: Source, child: Child) -> int:
    """The reading end, once somebody wrote. Raises JobFailed if nobody ever does."""
    file = os.open(_path(source), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while not poll.poll(100):
        if child.ended() and not poll.poll(0):
            os.close(file)
            raise JobFailed(
                "child-failed",
                f"{child.name} ended and never wrote {source.path}",
                hint=source.hint,
            )
    os.set_blocking(file, True)
    return file


def _path(source: Source) -> Path:
    if source.path is None:
        raise JobFailed("internal", f"source {source.name} has no path")
    return Path(source.path)
