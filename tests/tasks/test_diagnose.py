"""From errors to findings."""

from blocks.evidence.findings import CATALOGUE, Severity
from blocks.sets import NoSuchSet
from tasks.diagnose import diagnose


def test_what_ends_a_stage_is_critical_even_if_its_like_is_less_elsewhere() -> None:
    (item,) = diagnose(NoSuchSet("none retained", domain="west"), "preflight", "east")
    assert CATALOGUE[item.id].severity is Severity.HIGH
    assert (item.id, item.subject, item.severity) == ("copy-behind", "west", Severity.CRITICAL)
