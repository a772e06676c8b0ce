"""An orchestrator for tests: runs the agent as a process, and answers it with presigned URLs."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from blocks.agent import bundle
from blocks.agent.protocol import from_line, to_line
from blocks.agent.protocol.events import (
    Answer,
    Done,
    Event,
    Failed,
    GetLease,
    Ok,
    Prepare,
    PutLease,
    PutObjectLease,
    Stop,
    Stored,
    Url,
    Urls,
    VolumeSealed,
)
from blocks.agent.protocol.jobs import Job
from blocks.artifact.age import generate_identity, recipient_of
from blocks.artifact.objects import volume_key

_PATIENCE = 280.0  # a gigabyte of noise takes two minutes where other tests run beside


@dataclass
class Outcome:
    """All that an agent said."""

    events: list[Any] = field(default_factory=list)
    exit_code: int | None = None
    stderr: str = ""

    @property
    def last(self) -> Any:
        return self.events[-1] if self.events else None

    @property
    def done(self) -> Done:
        assert isinstance(self.last, Done), (self.last, self.stderr)
        assert self.exit_code == 0
        return self.last

    @property
    def failed(self) -> Failed:
        assert isinstance(self.last, Failed), (self.last, self.stderr)
        assert self.exit_code == 1
        return self.last

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


class Run:
    """An agent that runs."""

    def __init__(self, agent: Path, job: Job, answer: Callable[[Any], Answer | None]) -> None:
        self.outcome = Outcome()
        self.process = subprocess.Popen(
            [sys.executable, str(agent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._answer = answer
        self.say(to_line(job))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def say(self, line: str) -> None:
        # ValueError: the test closed it, to be gone, while a question was on its way.
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.stdin.write(line.encode())
            self.stdin.flush()

    def stop(self) -> None:
        self.say(to_line(Stop()))

    def wait(self, timeout: float = _PATIENCE) -> Outcome:
        self.outcome.exit_code = self.process.wait(timeout)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.outcome.stderr = self.process.stderr.read().decode()
        self.close()
        return self.outcome

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = from_line(Event, line)
            self.outcome.events.append(event)
            try:
                reply = self._answer(event)
            except BaseException:
                self.process.kill()  # it would wait for the answer for ever
                raise
            if reply is not None:
                self.say(to_line(reply))


class Orchestrator:
    """Hands out URLs of one prefix in a store (and of another store to read from, for copies)."""

    def __init__(self, agent: Path, store: Any, prefix: str, source: Any = None) -> None:
        self.agent = agent
        self.store = store
        self.source = source or store
        self.prefix = prefix
        self.uploads: dict[str, str] = {}
        self.ignore_volumes: set[int] = set()
        self.runs: list[Run] = []
        self.spoil: Callable[[str], str] = lambda url: url
        self.prepare: Callable[[], Answer | None] = Ok

    def start(self, job: Job) -> Run:
        run = Run(self.agent, job, self.answer)
        self.runs.append(run)
        return run

    def run(self, job: Job) -> Outcome:
        return self.start(job).wait()

    def path(self, key: str) -> Path:
        """Where the server keeps an object."""
        found: Path = self.store.directory / self.prefix / key
        return found

    def answer(self, event: Any) -> Answer | None:
        match event:
            case PutLease():
                key = self.prefix + "/" + volume_key(event.object, event.volume)
                numbers = range(event.first, event.first + event.count)
                return Urls(urls=tuple(self._part_url(key, number) for number in numbers))
            case PutObjectLease():
                return Url(url=self._url("put_object", self.store, event.object))
            case GetLease():
                return Url(url=self.spoil(self._url("get_object", self.source, event.key)))
            case VolumeSealed():
                self._complete(self.prefix + "/" + volume_key(event.object, event.volume), event)
                return Ok()
            case Stored():
                return Ok()
            case Prepare():
                return self.prepare()
        return None

    def _url(self, method: str, store: Any, key: str) -> str:
        where = {"Bucket": store.bucket, "Key": f"{self.prefix}/{key}"}
        url: str = store.client.generate_presigned_url(method, where, ExpiresIn=600)
        return url

    def _part_url(self, key: str, number: int) -> str:
        client, bucket = self.store.client, self.store.bucket
        if key not in self.uploads:
            self.uploads[key] = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        where = {"Bucket": bucket, "Key": key, "UploadId": self.uploads[key], "PartNumber": number}
        url: str = client.generate_presigned_url("upload_part", where, ExpiresIn=600)
        return url

    def _complete(self, key: str, event: VolumeSealed) -> None:
        parts = [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(event.etags, 1)]
        self.store.client.complete_multipart_upload(
            Bucket=self.store.bucket,
            Key=key,
            UploadId=self.uploads.pop(key),
            MultipartUpload={"Parts": parts},
        )


@dataclass(frozen=True)
class Keys:
    identity: str
    recipient: str


@pytest.fixture(scope="session")
def keys() -> Keys:
    """An age identity and its recipient."""
    identity = generate_identity()
    return Keys(identity, recipient_of(identity))


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent's one file, as it is carried to hosts."""
    path = tmp_path_factory.mktemp("agent") / "agent.pyz"
    path.write_bytes(bundle.build())
    return path


@pytest.fixture
def near(agent: Path, s3: Any, tmp_path: Path) -> Iterator[Orchestrator]:
    """Works in one store, under a prefix of its own."""
    orchestrator = Orchestrator(agent, s3, tmp_path.name)
    yield orchestrator
    for run in orchestrator.runs:
        run.close()


@pytest.fixture
def far(agent: Path, s3: Any, s3_far: Any, tmp_path: Path) -> Iterator[Orchestrator]:
    """Copies from the first store to the second, under the same prefix."""
    orchestrator = Orchestrator(agent, s3_far, tmp_path.name, source=s3)
    yield orchestrator
    for run in orchestrator.runs:
        run.close()
