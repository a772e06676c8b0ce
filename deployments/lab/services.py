"""What runs in the two domains, in the order in which it is started."""

import socket

from deployments.lab import credentials, namespaces, parts, runtime
from deployments.lab.domains import EAST
from deployments.lab.places import Places
from deployments.lab.processes import MARK, Service
from deployments.lab.site import Endpoint, Host, Site

_CONNECT_SECONDS = 0.5


def network_services(places: Places, site: Site) -> list[Service]:
    """A domain's SSH servers and its object store."""
    return [*(_ssh(places, site, host) for host in site.hosts), _store(places, site)]


def all_services(places: Places, site: Site) -> list[Service]:
    """Everything that runs in a domain."""
    there = parts.of(site) if site.domain is EAST else ()
    return [
        *network_services(places, site),
        *(service for part in there for service in part.servers(places, site)),
        *(service for part in there for service in part.writers(places, site)),
    ]


def answers(endpoint: Endpoint) -> bool:
    """True if somebody listens there."""
    try:
        with socket.create_connection(endpoint, timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _ssh(places: Places, site: Site, host: Host) -> Service:
    endpoint = site.ssh[host.name]
    return Service(
        name=f"{site.name}-ssh-{host.name}",
        tree=places.tree(site.name),
        argv=_openssh(places, site, host) if site.namespaces else _asyncssh(places, site, host),
        cwd=places.host(site.name, host.name),
        log=places.logs(site.name) / f"ssh-{host.name}.log",
        ready=lambda: answers(endpoint),
        endpoint=endpoint,
        namespace=site.namespace(host),
    )


def _asyncssh(places: Places, site: Site, host: Host) -> tuple[str, ...]:
    """From pip alone, and needs no account's shell: what the loopback lab has."""
    script = places.runtime(site.name) / "ssh_server.py"
    address, port = site.ssh[host.name]
    files = map(str, credentials.ssh_files(places, site, host))
    return (str(places.python(site.name)), "-P", str(script), address, str(port), *files)


def _openssh(places: Places, site: Site, host: Host) -> tuple[str, ...]:
    """OpenSSH as most sites have it: what is not said here is its own default."""
    address, port = site.ssh[host.name]
    host_key, authorized_keys = credentials.ssh_files(places, site, host)
    settings = {
        "ListenAddress": f"{address}:{port}",
        "HostKey": host_key,
        "AuthorizedKeysFile": authorized_keys,
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PidFile": "none",
        "Subsystem": "sftp internal-sftp",
        # Whose is it? `lose` asks every process.
        "SetEnv": f"{MARK}={places.tree(site.name)}",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    return (namespaces.tool("sshd"), "-D", "-e", "-f", "/dev/null", *options)


def _store(places: Places, site: Site) -> Service:
    certificate, key = credentials.certificate_files(places, site)
    access, secret = credentials.store_key(places, site.name)
    return Service(
        name=f"{site.name}-store",
        tree=places.tree(site.name),
        argv=(
            str(runtime.rclone(places, site.name)),
            "serve",
            "s3",
            f"--addr={site.store[0]}:{site.store[1]}",
            f"--cert={certificate}",
            f"--key={key}",
            # A hash would make every HEAD of an object read the whole of it.
            "--etag-hash=",
            str(places.store(site.name)),
        ),
        cwd=places.store(site.name),
        log=places.logs(site.name) / "store.log",
        ready=lambda: answers(site.store),
        endpoint=site.store,
        namespace=site.namespace(site.domain.store),
        environment={
            "RCLONE_CONFIG": "/dev/null",
            # In the environment and not in argv; the inner quotes keep the comma.
            "RCLONE_AUTH_KEY": f'"{access},{secret}"',
        },
    )
