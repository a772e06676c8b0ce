"""Expiry of backup sets, in two real stores; nothing but what retention does not keep may go."""

import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blocks.artifact.manifest import public_key_of
from blocks.errors import FarsideError
from blocks.evidence.record import Record, Verdict
from blocks.plan.model import Plan
from blocks.repositories.farside.layout import MANIFEST
from blocks.repositories.farside.listing import unfinished
from blocks.stores.s3 import S3Store
from blocks.stores.store import AccessDenied
from flows import sweep
from flows.command import outcome
from flows.sweep import __main__ as sweep_command
from tasks import expiry
from tasks.evidence import evidence
from tasks.lease import STORED
from tasks.sweep import Swept, sweep_plan
from tests.tasks.sites import FORMER, OTHER, TWO, Site

FOUR = ["r1", "r2", "r3", "r4"]


@pytest.fixture
def four(site: Site) -> Site:
    """Four sets in both stores, r4 of today."""
    for days, set_id in enumerate(reversed(FOUR)):
        site.add(set_id, days)
    return site


def everything(site: Site) -> list[list[str]]:
    return [[info.key for info in store.objects()] for store in site.stores]


def test_each_store_keeps_its_own_newest(site: Site, verified: Record) -> None:
    """A store that lacks the newest sets, for they were not copied, keeps what it has."""
    east, west = site.stores
    for days, set_id in enumerate(reversed(FOUR)):
        site.add(set_id, days, *([east] if set_id in ("r3", "r4") else [east, west]))
    site.add("r0", 9, west)
    site.prove(verified, "r2")
    for store in site.stores:  # and what is no set of the plan's
        store.put("sets/shop-2/r1/manifest.json", b"x")
        store.put("sets/other/r1/manifest.json", b"x")
        store.put("other", b"x")
    before = everything(site)
    told = site.expire()
    assert (told.alone, told.remaining) == ([], [])
    assert site.ids() == (["r2", "r3", "r4"], ["r1", "r2"])
    gone = [("sets/shop/r1/",), ("sets/shop/r0/",)]
    for keys, after, prefixes in zip(before, everything(site), gone, strict=True):
        assert after == [key for key in keys if not key.startswith(prefixes)]
    assert told.expired == [
        "set r0 (taken 2026-11-17 12:00 UTC, 0 B) from west",
        "set r1 (taken 2026-11-23 12:00 UTC, 0 B) from east",
    ]
    assert told.kept == [
        "sets in west: 2 by last: 2",
        "sets in east: 2 by last: 2, 1 as the newest verified",
    ]
    assert site.expire().expired == []


@pytest.mark.parametrize("stored", [False, True])
def test_the_newest_verified_set_stays(four: Site, verified: Record, stored: bool) -> None:
    """Whether its record lies in the results folder or in the recovery store alone."""
    four.prove(verified, "r1", stored=stored)
    four.expire()
    assert four.ids() == (["r1", "r3", "r4"],) * 2


def test_what_proves_nothing(four: Site, verified: Record) -> None:
    four.prove(verified, "r2", key=OTHER)
    four.prove(verified, "r1", verdict=Verdict.PARTIAL)
    four.prove(verified, "r2", key=OTHER, stored=True)
    told = four.expire()
    assert four.ids() == (["r3", "r4"],) * 2
    assert told.alone[0].startswith("2 records, which do not count: of-r2.json: the signature is")
    assert told.kept[0] == "the newest set of each store, for no record that counts proves any"


def without_signer(site: Site) -> Site:
    keys = site.plan.keys.model_copy(update={"record_signer": None})
    return replace(site, plan=site.plan.model_copy(update={"keys": keys}))


def test_where_no_signer_is_pinned(four: Site, verified: Record) -> None:
    four.prove(verified, "r1", key=OTHER)
    told = without_signer(four).expire()
    assert four.ids() == (["r1", "r3", "r4"],) * 2
    assert "pins no record_signer" in told.kept[0]


@pytest.mark.parametrize("stored", [False, True])
def test_evidence_that_cannot_be_read_is_unknown(four: Site, stored: bool) -> None:
    """Of any record it is not known what it proves: nothing goes."""
    if stored:
        four.plan.recovery.store.put("records/shop/torn.json", b"{")
    else:
        four.results.mkdir()
        (four.results / "torn.json").write_text("{")
    told = without_signer(four).expire()
    assert four.ids() == (FOUR, FOUR)
    (text,) = told.remaining
    assert "nothing was expired: which sets are verified is unknown" in text
    assert "torn.json" in text


def test_sets_that_are_not_the_plans_are_left_alone_and_do_not_count(four: Site) -> None:
    four.add("r0", 9, key=FORMER)
    four.add("r8", -1, key=OTHER)
    four.add("r9", -2, plan="bank")
    four.plan.recovery.store.put(f"sets/shop/zz/{MANIFEST}", b"not signed")
    told = four.expire()
    assert four.ids() == (["r3", "r4", "r8", "r9"], ["r3", "r4", "r8", "r9", "zz"])
    assert [text.partition(":")[0] for text in told.alone] == [
        *("set r8 in west", "set r9 in west", "set zz in west"),
        *("set r8 in east", "set r9 in east"),
    ]
    assert told.remaining == []


@pytest.mark.parametrize("owner", ["", "another machine's 1 2"])
def test_nothing_goes_while_a_rehearsal_of_the_plan_runs(four: Site, owner: str) -> None:
    """Which set it has chosen only that rehearsal knows."""
    four.lease("r7", owner=owner)
    before = everything(four)
    told = four.expire()
    assert (told.alone, told.remaining) == (
        ["nothing was expired while r7 may use a set: it runs"],
        [],
    )
    assert everything(four) == before


def test_nothing_goes_while_it_is_not_known_whether_one_runs(four: Site) -> None:
    four.plan.recovery.store.put(f"{STORED}r7.json", b"torn")
    before = everything(four)
    told = four.expire()
    assert (len(told.remaining), told.expired) == (1, [])
    assert "nothing was expired while r7 may use a set" in told.remaining[0]
    assert everything(four) == before


def test_one_that_begins_meanwhile(four: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(plan: Plan, results: Path) -> Any:
        four.lease("r7")
        return evidence(plan, results)

    monkeypatch.setattr(expiry, "evidence", slow)
    told = four.expire()
    assert four.ids() == (FOUR, FOUR)
    assert "nothing was expired while r7 may use a set: it runs" in told.alone
    leases = [[info.key for info in store.objects(STORED)] for store in four.stores]
    assert leases == [[], [f"{STORED}r7.json"]]


@pytest.mark.parametrize(("plan", "kept"), [("shop", True), ("bank", False)])
def test_the_source_is_not_looked_at_while_it_may_be_lost(
    four: Site, plan: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the fence of a kept service, or of another plan's rehearsal."""
    four.lease("r1", plan, kept=kept)
    called: list[str] = []
    real = S3Store._call

    def call(store: S3Store, *words: Any) -> Any:
        called.append(store.domain)
        return real(store, *words)

    monkeypatch.setattr(S3Store, "_call", call)
    told = four.expire()
    assert set(called) == {"west"}
    assert four.ids() == (FOUR, ["r1", "r3", "r4"])
    assert "1 as their rehearsals are kept, or not cleared away" in told.kept[-1]
    assert told.alone[0].startswith("sets in east: r1 may have lost it: it ")


def unreachable(site: Site, side: str) -> Site:
    """A store at whose address nothing answers."""
    whole = getattr(site.plan, side)
    store = S3Store(**whole.store.model_dump() | {"endpoint": "https://127.0.0.1:9"})
    store.join(whole.name)
    lost = whole.model_copy(update={"store": store})
    return replace(site, plan=site.plan.model_copy(update={side: lost}))


def test_a_source_that_is_unreachable(four: Site) -> None:
    told = unreachable(four, "source").expire()
    assert four.ids() == (FOUR, ["r3", "r4"])
    (text,) = told.remaining
    assert text.startswith("sets in east: nothing was expired there: east: ")


def test_a_recovery_store_that_is_unreachable(four: Site) -> None:
    """It holds the leases and the records: without it nothing is known of the source's sets."""
    told = unreachable(four, "recovery").expire()
    assert four.ids() == (FOUR, FOUR)
    assert told.remaining[0].startswith("nothing was expired: whether a rehearsal runs is unknown")


def test_killed_in_the_middle_a_sweep_goes_on(four: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("FARSIDE_LEASE_SECONDS", "1")
    with monkeypatch.context() as patch:
        patch.setattr(expiry, "discard_unfinished", killed)
        with pytest.raises(KeyboardInterrupt):
            four.expire()
    # What is there of them is no set any more: nothing restores it, and only the sweep sees it.
    assert four.ids() == (FOUR, ["r3", "r4"])
    assert unfinished(four.plan.recovery.store, "shop") == ["r1", "r2"]
    time.sleep(2.1)
    swept = sweep_plan(four.plan, everything=False, results=four.results)
    assert swept.remaining == ()
    assert swept.removed == ("west store: 3 objects of r1", "west store: 3 objects of r2")
    assert everything(four)[1] == [
        f"sets/shop/{set_id}/{name}"
        for set_id in ("r3", "r4")
        for name in ("base.000", "header.json", "log.json", "manifest.json")
    ]
    assert four.expire().remaining == []
    assert four.ids() == (["r3", "r4"],) * 2


def test_a_store_that_lets_nothing_be_removed(four: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = S3Store.remove

    def refusing(store: S3Store, keys: Any) -> None:
        wanted = list(keys)
        if store.domain == "west" and any(key.startswith("sets/") for key in wanted):
            raise AccessDenied("s3:DeleteObject is not allowed", domain=store.domain)
        real(store, wanted)

    monkeypatch.setattr(S3Store, "remove", refusing)
    told = four.expire()
    assert four.ids() == (["r3", "r4"], FOUR)
    (text,) = told.remaining
    assert text.startswith("sets in west, not all removed; the next sweep goes on: west: s3:Del")
    assert sweep_plan(four.plan, everything=False, results=four.results).remaining == ()


class TestCommand:
    """`python -m flows.sweep --expire`, in this process."""

    @pytest.fixture(autouse=True)
    def _site(self, four: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sweep, "opened", lambda *_, **__: nullcontext(four.plan))
        monkeypatch.setattr(sweep_command, "end_orphaned_servers", tuple)
        self.site = four
        self.patch = monkeypatch

    def run(self, *words: str, plan: str = "./plan.yaml") -> int:
        argv = ["sweep", plan, "--results", str(self.site.results), *words]
        self.patch.setattr("sys.argv", argv)
        return outcome(sweep_command.app, "python -m flows.sweep")

    def test_what_it_says(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run() == 0
        assert self.site.ids() == (FOUR, FOUR)
        assert capsys.readouterr().out == "nothing to remove\n"
        assert self.run("--expire") == 0
        assert capsys.readouterr().out.splitlines() == [
            "expired    set r1 (taken 2026-11-23 12:00 UTC, 0 B) from west",
            "expired    set r2 (taken 2026-11-24 12:00 UTC, 0 B) from west",
            "expired    set r1 (taken 2026-11-23 12:00 UTC, 0 B) from east",
            "expired    set r2 (taken 2026-11-24 12:00 UTC, 0 B) from east",
            "kept       the newest set of each store, for no record that counts proves any",
            "kept       sets in west: 2 by last: 2",
            "kept       sets in east: 2 by last: 2",
        ]

    def test_what_is_not_known_is_no_success(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.site.plan.recovery.store.put(f"{STORED}r7.json", b"torn")
        assert self.run("--expire") == 1
        assert "REMAINS    nothing was expired while r7 may use a set" in capsys.readouterr().out

    def test_a_plan_that_says_nothing_of_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        plan = self.site.plan.model_copy(update={"retention": None})
        self.patch.setattr(sweep, "opened", lambda *_, **__: nullcontext(plan))
        assert self.run("--expire") == 64
        said = capsys.readouterr().err
        assert "./plan.yaml: retention: missing" in said
        assert "retention: {last: 7, days: 30}" in said
        assert self.site.ids() == (FOUR, FOUR)

    def test_a_saved_plan_whose_digest_alone_is_trusted(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Its retention is not in the digest."""
        self.patch.setenv("FARSIDE_TRUSTED_PLANS", self.site.plan.digest)
        assert self.run("--expire", plan="shop") == 64
        assert "FARSIDE_TRUSTED_PLANS" in capsys.readouterr().err
        assert self.site.ids() == (FOUR, FOUR)
        assert self.run("--expire") == 0

    def test_the_flow(self) -> None:
        sweep.sweep.fn("./plan.yaml", results=str(self.site.results), expire=True)
        assert self.site.ids() == (["r3", "r4"],) * 2
        self.site.plan.recovery.store.put(f"{STORED}r7.json", b"torn")
        with pytest.raises(FarsideError, match="nothing was expired"):
            sweep.sweep.fn("./plan.yaml", results=str(self.site.results), expire=True)


def test_sets_of_a_former_key_expire_too(site: Site) -> None:
    assert public_key_of(FORMER) in site.plan.keys.former_signers
    site.add("r0", 9, key=FORMER)
    site.add("r1", 1)
    site.add("r2", 0)
    site.expire(TWO)
    assert site.ids() == (["r1", "r2"],) * 2


def test_no_text_of_a_hostile_host_steers_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = ("gone\r\nREMAINS    all \x9b2J\x1b]0;title\x07\b\u202e",)
    sweep_command._tell(Swept(hostile, hostile, hostile, hostile, hostile, hostile))
    lines = capsys.readouterr().out.split("\n")
    words = ["recorded", "removed", "expired", "kept", "left alone", "REMAINS", ""]
    assert [line[:11].strip() for line in lines] == words
    assert all(line.isprintable() for line in lines)
