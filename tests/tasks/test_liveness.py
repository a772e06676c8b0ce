"""Which rehearsals run."""

from tasks.liveness import others_running
from tests.tasks.sites import Site


def test_a_rehearsal_does_not_take_itself_for_another(site: Site) -> None:
    """Preflight is tried again after an error that may pass; its lease is there by then."""
    site.lease("r1")
    assert others_running(site.plan, "r1") == []
    assert others_running(site.plan, "r2") == ["r1"]
