"""Transfer between two real stores: both hold the set afterwards, and can be read by it alone."""

from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from blocks.agent.protocol.parts import Source
from blocks.engines.command.facts import CommandFacts
from blocks.engines.engine import Captured
from blocks.repositories.farside.copier import SetCopier
from blocks.repositories.farside.reader import SetReader
from blocks.repositories.farside.writer import SetWriter
from tasks.context import Options, Rehearsal
from tasks.reporting.clock import StageClock
from tasks.transfer import transfer
from tests.tasks.sites import KEY, Site


def test_each_store_is_whole_by_its_own_index(site: Site) -> None:
    """The log that crossed after the snapshot is in the source's index, too."""
    plan = site.plan
    (host,) = plan.source.hosts
    rehearsal = Rehearsal("r1", plan, Options(results=site.results), StageClock())
    writer = SetWriter(plan.source, plan.name, "r1", plan.keys.recipients, plan.engine.label)

    def seal(name: str) -> Any:
        source = Source(name=name, kind="stdout")
        writer.seal(host, ["echo", name], secret=SecretStr(""), sources=[source])
        return writer._objects[-1]

    seal("base.tar.zst.age")
    now = datetime.now(UTC)
    manifest = writer.finish(Captured(now, now, CommandFacts("7.0", 1)), SecretStr(KEY))
    for number in (1, 2):
        sealed = seal(f"wal/7.partial-{number}.zst.age")
        writer._followed.append((sealed, now))
    copier = SetCopier(plan.source, plan.recovery, plan.recovery.host("db1"), plan.name, "r1", None)
    known = transfer.fn(rehearsal, writer, copier, manifest)
    for domain in (plan.source, plan.recovery):
        writer.prune(domain.store)
        reader = SetReader(domain, plan.binding, "r1", "r2")
        log = reader.log()
        assert log.sequence == known.log_sequence
        assert [item.name for item in log.objects] == ["wal/7.partial-2.zst.age"]
        assert list(reader.defects((*reader.manifest().objects, *log.objects))) == []
        there = [info.key for info in domain.store.objects("sets/shop/r1/wal/")]
        assert len(there) == 1
