"""Records reach the results folder and the recovery store, signed; what is missing is said."""

from dataclasses import replace
from pathlib import Path

import pytest

from blocks.artifact.signing import public_key_of
from blocks.errors import TransientError
from blocks.evidence.record import Record, Verdict
from blocks.evidence.signature import load_signed, signature_path
from tasks.journal import FILE, recover
from tasks.reporting.publish import publish
from tasks.sweep import sweep_plan
from tests.tasks.sites import ENDED, RECORD_KEY, Site


@pytest.fixture
def killed(site: Site, verified: Record) -> Record:
    """The journal of a rehearsal of the site's plan that was killed."""
    plan = replace(verified.plan, name=site.plan.name)
    return replace(verified, rehearsal_id="r7", plan=plan, verdict=Verdict.COULD_NOT_VERIFY)


def leave(site: Site, record: Record) -> None:
    """What a killed rehearsal leaves in the recovery domain: its directory, and its dead lease."""
    (host,) = site.plan.recovery.hosts
    host.run(["mkdir", "-m", "700", "-p", f"{host.work_root}/r7"])
    host.put(record.to_json().encode(), f"{host.work_root}/r7/{FILE}")
    site.lease("r7", owner=ENDED)


def lock(site: Site) -> Path:
    """Take the record key out of the recovery vault; returns where it belongs."""
    key = site.folder / "vault" / "record-key"
    key.unlink()
    return key


def stored(site: Site) -> list[str]:
    return [info.key for info in site.plan.recovery.store.objects("records/")]


WHOLE = ["records/shop/r7.json", "records/shop/r7.json.sig"]


def test_a_sweep_signs_the_record_that_it_writes(site: Site, killed: Record) -> None:
    leave(site, killed)
    swept = sweep_plan(site.plan, everything=False, results=site.results)
    path = site.results / "r7.json"
    assert (swept.recorded, swept.remaining) == ((str(path),), ())
    assert load_signed(path, public_key_of(RECORD_KEY)).verdict is Verdict.COULD_NOT_VERIFY
    assert stored(site) == WHOLE
    assert site.plan.recovery.store.get(WHOLE[1]) == signature_path(path).read_bytes()


def test_a_key_that_cannot_be_read_is_said_and_signs_at_the_next_sweep(
    site: Site, killed: Record
) -> None:
    leave(site, killed)
    key = lock(site)
    swept = sweep_plan(site.plan, everything=False, results=site.results)
    (text,) = swept.remaining
    assert text.startswith("the record of r7: it is not signed: ")
    assert "record-key" in text
    assert stored(site) == WHOLE[:1], "unsigned evidence is better than none"
    key.write_text(RECORD_KEY)
    key.chmod(0o600)
    swept = sweep_plan(site.plan, everything=False, results=site.results)
    assert (swept.recorded, swept.remaining) == ((str(site.results / "r7.json"),), ())
    assert stored(site) == WHOLE
    load_signed(site.results / "r7.json", public_key_of(RECORD_KEY))
    assert sweep_plan(site.plan, everything=False, results=site.results).recorded == ()


def test_a_signature_of_another_text_does_not_stay(site: Site, killed: Record) -> None:
    path = publish(site.plan, site.results, killed).path
    lock(site)
    published = publish(site.plan, site.results, replace(killed, trigger="nightly"))
    assert not signature_path(path).exists()
    assert "not signed" in published.problems[0]


class TestRecover:
    """A record that is in the results folder already, when its rehearsal is found dead."""

    def test_one_that_a_signal_had_written_is_signed(self, site: Site, killed: Record) -> None:
        path = killed.save(site.results)
        assert recover(site.plan, "r7", site.results) is not None
        assert load_signed(path, public_key_of(RECORD_KEY)) == killed
        assert stored(site) == WHOLE
        assert recover(site.plan, "r7", site.results) is None

    def test_one_that_was_signed_is_only_copied(self, site: Site, killed: Record) -> None:
        """Killed between the two: it is not for a sweep to sign what a folder holds."""
        path = replace(killed, verdict=Verdict.VERIFIED).save(site.results)
        signature_path(path).write_bytes(b"as it is")
        published = recover(site.plan, "r7", site.results)
        assert published is not None
        assert (published.problems, published.note) == ((), "")
        assert stored(site) == WHOLE
        assert site.plan.recovery.store.get(WHOLE[1]) == b"as it is"

    def test_a_verdict_that_its_rehearsal_did_not_sign_is_not_signed_here(
        self, site: Site, killed: Record
    ) -> None:
        path = replace(killed, verdict=Verdict.VERIFIED).save(site.results)
        published = recover(site.plan, "r7", site.results)
        assert published is not None
        assert "not signed" in published.note
        assert not signature_path(path).exists()
        assert stored(site) == WHOLE[:1]

    def test_what_its_rehearsal_has_stored_is_not_replaced(
        self, site: Site, killed: Record, tmp_path: Path
    ) -> None:
        """Kept, its record written into another folder; the journal still lies on its hosts."""
        leave(site, killed)
        final = replace(killed, verdict=Verdict.VERIFIED)
        publish(site.plan, tmp_path / "own", final)
        assert recover(site.plan, "r7", site.results) is None
        assert site.plan.recovery.store.get(WHOLE[0]) == final.to_json().encode()
        # Nor by what a signal had written before it went on to its end.
        killed.save(site.results)
        assert recover(site.plan, "r7", site.results) is None
        assert site.plan.recovery.store.get(WHOLE[0]) == final.to_json().encode()

    def test_a_store_that_does_not_say_holds_nothing_up(
        self, site: Site, killed: Record, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leave(site, killed)

        def away(*_: object) -> None:
            raise TransientError("gone")

        monkeypatch.setattr(type(site.plan.recovery.store), "head", away)
        published = recover(site.plan, "r7", site.results)
        assert published is not None
        assert "not known" in published.problems[0]
        monkeypatch.undo()
        assert stored(site) == []
        assert recover(site.plan, "r7", site.results) is not None
        assert stored(site) == WHOLE

    def test_one_of_another_plan_is_not_this_plans(self, site: Site, killed: Record) -> None:
        replace(killed, plan=replace(killed.plan, name="bank")).save(site.results)
        assert recover(site.plan, "r7", site.results) is None
        assert stored(site) == []
