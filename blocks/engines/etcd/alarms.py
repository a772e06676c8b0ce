"""Alarms: a snapshot holds the source's, with which a restored cluster takes no writes."""

from collections.abc import Iterator
from functools import partial

from blocks.engines.checks import Answer, CheckSpec, judged
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.etcd.facts import EtcdFacts
from blocks.evidence.catalogue import FindingId
from blocks.evidence.findings import Finding, finding

SUBJECT = "alarm {}"
"""The subject of what an alarm means, in preflight and afterwards: one cause, one finding."""
_NONE = "no alarm: writes are taken"


def alarms(root: Etcdctl) -> CheckSpec:
    """No alarm is raised."""
    return CheckSpec("alarms", _NONE, partial(_alarms, root), finding=FindingId.USABLE_NOT_RESTORED)


def _alarms(root: Etcdctl) -> Answer:
    raised = root.alarms()
    wrong = [_meaning(name) for name in raised]
    return judged(wrong, _NONE, subjects=tuple(SUBJECT.format(name) for name in raised))


def of_source(facts: EtcdFacts) -> Iterator[Finding]:
    """The source's own alarms, which a restore of its snapshot brings back."""
    for name in dict.fromkeys((*(facts.alarms or ()), *(facts.last.alarms or ()))):
        remedy = "Give the source's etcd space (compact, defragment), then `etcdctl alarm disarm`."
        text = f"the source has it already: {_meaning(name)}"
        yield finding(FindingId.USABLE_NOT_RESTORED, SUBJECT.format(name), text, remedy=remedy)


def _meaning(name: str) -> str:
    return f"alarm {name} is raised: " + (
        "its data is damaged" if name == "CORRUPT" else "etcd takes no writes until it is disarmed"
    )
