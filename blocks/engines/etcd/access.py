"""What a cluster asks its clients for: a user, a certificate."""

from functools import partial

from blocks.engines.checks import Answer, CheckSpec
from blocks.engines.common.tally import Tally
from blocks.engines.etcd.etcdctl import Etcdctl, LoginRefused, Untrusted
from blocks.engines.etcd.facts import EtcdFacts
from blocks.engines.etcd.plan import TargetCluster
from blocks.errors import TransientError
from blocks.evidence.catalogue import FindingId

PROBE_SECONDS = 5.0
CERTIFICATES = "client certificates"
"""What preflight and the restored service find missing is one finding, by this subject."""


def is_protected(root: Etcdctl) -> bool:
    """Whether the cluster asks its clients for a user. Raises as Etcdctl.text."""
    try:
        root.as_nobody().count("/")
    except LoginRefused:
        return True
    return False


def wants_certificate(root: Etcdctl) -> bool:
    """Whether a member that answers `root` is silent to a client without a certificate.

    Raises what Etcdctl.text raises where it does not answer `root` right after either.
    """
    if not root.cert_file:
        return False
    try:
        root.without_certificate().text("endpoint", "status", timeout=PROBE_SECONDS)
    except (TransientError, Untrusted):
        root.text("endpoint", "status", timeout=PROBE_SECONDS)
        return True
    return False


def access(root: Etcdctl, target: TargetCluster, facts: EtcdFacts) -> CheckSpec:
    """Each member asks its clients for no less than the source did: users, certificates."""
    return CheckSpec(
        "access",
        "no client is asked for less than by the source",
        partial(_access, root, target, facts),
        finding=FindingId.SERVICE_MORE_OPEN,
    )


def _access(root: Etcdctl, target: TargetCluster, facts: EtcdFacts) -> Answer:
    """Asked as a client that shows neither.

    A member that says nothing to one but answers another wants a certificate.
    """
    tally, last = Tally(), facts.last.asked_for_login()
    asks_login = asks_certificate = True
    for endpoint in target.endpoints:
        member = root.at(endpoint)
        member.status()  # it answers one that shows all it has: what is silent now, refuses
        login, certificate = is_protected(member), wants_certificate(member)
        asks_login, asks_certificate = asks_login and login, asks_certificate and certificate
        tally.seen += 1
        if not login:
            text = f"{endpoint} asks for no user: authentication is off"
            tally.compare("authentication", text, False, facts.auth, last, subject="users")
        if facts.client_certificates and not certificate:
            text = f"{endpoint} asks for no client certificate, as the source does"
            tally.fail(text, CERTIFICATES)
    asked = [
        name for name, asks in (("a user", asks_login), ("a certificate", asks_certificate)) if asks
    ]
    return tally.answer(
        f"clients are asked for {' and '.join(asked) or 'nothing, as at the source'}"
    )
