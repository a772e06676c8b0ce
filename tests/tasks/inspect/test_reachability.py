"""What a refusal proves depends on what answered before the loss."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from blocks.agent.protocol.jobs import ProbeJob
from blocks.agent.protocol.results import Probed, ProbeResult, ProbeStatus
from blocks.evidence.findings import Findings
from blocks.evidence.record import CheckStatus
from blocks.fences.fence import Observed
from blocks.hosts.host import Host, HostUnreachable
from blocks.hosts.local import LocalHost
from blocks.stores.s3 import S3Store
from tasks.inspect import reachability
from tasks.reach import Reach
from tasks.reporting.clock import StageClock
from tests.conftest import Hanging
from tests.tasks.inspect.test_ownership import domain

SSH, DATABASE = ("10.1.0.1", 22), ("10.1.0.1", 5432)
BUCKET = "s3.eu-central-1.amazonaws.com"


class Site:
    """Hosts whose probes are answered as the test says; a status of a URL last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: S3Store | None = None) -> None:
        source, recovery = domain("east", 1), domain("west", 2)
        if store is not None:
            source = source.model_copy(update={"store": store})
        self.answers: dict[tuple[str, int], ProbeStatus] = {}
        self.url: ProbeStatus = "open"
        self.asked: list[tuple[str, int]] = []
        self.lost: Exception | None = None
        endpoints = (SSH, DATABASE, *source.store.endpoints())
        fence = SimpleNamespace(tells=True, attempts=lambda _: Observed(tuple(self.seen)))
        self.seen: list[Any] = []
        plan = SimpleNamespace(fence=fence, gap=lambda _: SimpleNamespace(endpoints=endpoints))
        self.rehearsal: Any = SimpleNamespace(
            id="r1",
            plan=plan,
            source=source,
            recovery=recovery,
            reach=Reach(),
            clock=StageClock(),
        )
        self.rehearsal.findings, self.rehearsal.claimed = Findings(), {"west/db1"}
        monkeypatch.setattr(reachability, "probe", self._probe)
        monkeypatch.setattr(reachability, "_WATCHER_SECONDS", 0.0)
        monkeypatch.setattr(reachability, "PROBE_SECONDS", 0.0)
        monkeypatch.setattr(reachability, "_readable_url", self._url)

    def _url(self, rehearsal: Any) -> str | None:
        return "https://signed" if reachability.by_name(rehearsal) else None

    def _probe(self, _host: Host, _id: str, job: ProbeJob) -> ProbeResult:
        if self.lost:
            raise self.lost
        self.asked = list(job.endpoints)
        return ProbeResult(
            endpoints=tuple(
                Probed(address=a, port=p, status=self.answers.get((a, p), "open"), addresses=(a,))
                for a, p in job.endpoints
            ),
            urls=tuple(self.url for _ in job.urls),
        )

    def proof(self, **answers: ProbeStatus) -> reachability.Proof:
        for place in self.asked:
            self.answers[place] = answers.get("all", "refused")
        self.answers |= {SSH: answers["ssh"]} if "ssh" in answers else {}
        return reachability.leaks(self.rehearsal, "verify")


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site(monkeypatch)
    reachability.reach(made.rehearsal)
    return made


def test_what_answered_before_and_is_refused_is_fenced(site: Site) -> None:
    proof = site.proof()
    assert (proof.check.status, proof.denied, proof.never) == (CheckStatus.PASSED, 3, ())


def test_the_fence_sees_the_knocks_after_the_loss_and_each_packet_that_it_drops(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: Any = site.rehearsal.reach
    assert known.knocks is None, "what is called before the loss is no call of it"
    monkeypatch.setattr(reachability, "PROBE_SECONDS", 2.0)
    before = site.rehearsal.clock.now()
    site.proof(ssh="timeout")
    knocks: Any = known.knocks
    assert knocks.places == {SSH: 3, DATABASE: 1, ("10.1.0.9", 9000): 1}
    assert knocks.denied == {SSH, DATABASE, ("10.1.0.9", 9000)}
    assert before < knocks.began < knocks.ended
    site.proof()
    assert known.knocks is knocks, "the last proof comes after the fence was asked"


def test_an_interruption_does_not_wait_for_a_probe_that_hangs(
    site: Site, monkeypatch: pytest.MonkeyPatch, hanging: Hanging
) -> None:
    first, second = (LocalHost(name=name) for name in ("first", "second"))

    def probe(host: Host, *_: object) -> ProbeResult:
        if host is second:
            hanging.hang()
        hanging.interrupt()

    monkeypatch.setattr(reachability, "probe", probe)
    monkeypatch.setattr(reachability, "_machines", lambda _: [first, second])
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        reachability.leaks(site.rehearsal, "verify")
    assert time.monotonic() - began < 10


def test_what_answers_is_a_leak_and_fails_the_check(site: Site) -> None:
    proof = site.proof(ssh="open")
    assert [item.subject for item in proof.leaking] == ["10.1.0.1:22"]
    assert proof.check.status is CheckStatus.FAILED


@pytest.mark.parametrize("status", ["unknown", "reset"])
def test_what_could_not_be_tried_is_not_fenced(site: Site, status: ProbeStatus) -> None:
    proof = site.proof(ssh=status)
    assert proof.check.status is CheckStatus.UNKNOWN
    assert "10.1.0.1:22" in str(proof.check.actual)


def test_a_reset_that_the_watcher_saw_is_fenced(site: Site) -> None:
    site.seen = [SimpleNamespace(address=SSH[0], port=SSH[1])]
    assert site.proof(ssh="reset").check.status is CheckStatus.PASSED


def test_the_watcher_is_asked_once_for_all_calls_and_not_before_it_matters(site: Site) -> None:
    asked: list[int] = []

    def attempts(_: object) -> Observed:
        asked.append(1)
        return Observed(tuple(site.seen))

    site.rehearsal.plan.fence.attempts = attempts
    site.seen = [SimpleNamespace(address=address, port=port) for address, port in site.asked]
    for place in site.asked:
        site.answers[place] = "reset"
    reachability.leaks(site.rehearsal, "declare", watched=False)
    assert asked == []
    assert reachability.leaks(site.rehearsal, "verify").check.status is CheckStatus.PASSED
    assert len(asked) == 1


def test_a_machine_that_cannot_be_asked_any_more_is_unknown(site: Site) -> None:
    site.lost = HostUnreachable("gone")
    assert site.proof().check.status is CheckStatus.UNKNOWN


def test_what_was_never_reachable_is_said_and_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(monkeypatch)
    site.answers = {SSH: "timeout", DATABASE: "timeout", ("10.1.0.9", 9000): "timeout"}
    reachability.reach(site.rehearsal)
    proof = site.proof(all="timeout")
    assert (proof.denied, len(proof.never)) == (0, 3)
    assert "never reachable" in str(proof.check.actual)
    said = " ".join(reachability.unprobed(site.rehearsal))
    assert "nothing of the source was reachable from there before" in said
    assert "22, 5432, 9000" in said


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Site:
    store = S3Store(bucket="b", region="eu-central-1", credentials_file=Path("/none"))
    made = Site(monkeypatch, store)
    reachability.reach(made.rehearsal)
    return made


def test_a_providers_bucket_is_asked_not_its_port(provider: Site) -> None:
    assert (BUCKET, 443) not in provider.asked
    provider.url = "refused"
    assert provider.proof().check.status is CheckStatus.PASSED
    provider.url = "open"
    (leak,) = provider.proof().leaking
    assert leak.subject == f"{BUCKET} (bucket)"
    for not_told in ("unknown", "reset"):
        provider.url = not_told
        assert provider.proof().check.status is CheckStatus.UNKNOWN


def test_a_bucket_that_never_could_be_read_proves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Site(monkeypatch, S3Store(bucket="b", region="eu-central-1"))
    made.url = "refused"
    reachability.reach(made.rehearsal)
    assert made.proof().denied == 2, "the ports alone"
    assert any("bucket" in item for item in reachability.unprobed(made.rehearsal))
