"""What the source is used for after its loss: one cause is the same in every rehearsal."""

from types import SimpleNamespace
from typing import Any

from blocks.evidence.uses import new_ledger
from tasks.declare import uses_of_source


def test_an_object_of_the_source_is_named_by_its_store_whatever_the_set() -> None:
    rehearsal: Any = SimpleNamespace(source=SimpleNamespace(name="east"))
    with new_ledger() as ledger:
        ledger.enter("restore")
        ledger.note("object", "s3://backups/sets/shop/r20260701-120000-1a2b3c/base.000", "east")
        ledger.note("key", "identity", "east")
        ledger.note("key", "identity", "west")
        stored, key = uses_of_source(rehearsal)
    assert (stored.subject, key.subject) == ("s3://backups", "identity")
    assert "r20260701-120000-1a2b3c/base.000" in stored.evidence
