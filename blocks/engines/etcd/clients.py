"""Who asks etcd, and where: the members of a living source, and those that were restored."""

from pydantic import SecretStr

from blocks.domain import FailureDomain
from blocks.engines.etcd.etcdctl import Etcdctl
from blocks.engines.etcd.plan import SourceCluster, TargetCluster
from blocks.errors import FarsideError, TransientError


def living(source: FailureDomain, cluster: SourceCluster) -> Etcdctl:
    """Etcdctl at the first member that serves: a dead one does not keep us from a backup.

    Nor does a learner, which serves little, or one that is cut off from its leader.
    """
    client = Etcdctl(
        source.host(cluster.host),
        cluster.bin_dir,
        cluster.endpoints,
        cluster.ca_file,
        *_login(source, cluster.user, cluster.password),
        cluster.cert_file,
        cluster.key_file,
    )
    failure: FarsideError | None = None
    for endpoint in cluster.endpoints:
        try:
            status = client.at(endpoint).status(timeout=5)
        except TransientError as error:
            failure = error
        else:
            if status.get("leader") and not status.get("isLearner"):
                return client.at(endpoint)
            failure = TransientError(
                f"{endpoint} is a learner, or has no leader",
                operation="survey",
                domain=source.name,
                host=client.host.name,
            )
    assert failure is not None
    raise failure


def restored(
    recovery: FailureDomain, target: TargetCluster, user: str, password: str | None
) -> Etcdctl:
    """A user at all members of the restored cluster; nobody, where no password is named."""
    first, shows = target.members[0], target.client_cert_auth
    return Etcdctl(
        recovery.host(first.host),
        target.bin_dir,
        target.endpoints,
        target.ca_file,
        *_login(recovery, user, password),
        first.cert_file if shows else "",
        first.key_file if shows else "",
    )


def _login(domain: FailureDomain, user: str, password: str | None) -> tuple[str, SecretStr]:
    return (user, domain.secret(password)) if password else ("", SecretStr(""))
