"""Drills of topology and addressing."""

import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from deployments.lab.drills.board import ETCD, GALERA, POSTGRES, drill
from deployments.lab.drills.ground import Ground


@drill("address-hard-coded", "verify", select="fresh", plans=POSTGRES)
def address_hard_coded(ground: Ground) -> Iterator[None]:
    """A function names the address of east's primary."""
    address, port = ground.live.endpoint
    with ground.postgres.sql_undone(
        "CREATE FUNCTION orders_elsewhere() RETURNS text LANGUAGE sql AS $$\n"
        f"SELECT 'host={address} port={port} dbname=orders'\n$$",
        undo=("DROP FUNCTION orders_elsewhere()",),
    ):
        yield


@drill("path-hard-coded", "preflight", select="fresh", plans=POSTGRES)
def path_hard_coded(ground: Ground) -> Iterator[None]:
    """A setting of the application names a directory of east."""
    folder = ground.places.host("east", "app") / "uploads"
    with ground.postgres.sql_undone(
        f"ALTER SYSTEM SET shop.uploads = '{folder}'",
        "SELECT pg_reload_conf()",
        undo=("ALTER SYSTEM RESET shop.uploads", "SELECT pg_reload_conf()"),
    ):
        yield


@drill("name-resolves-to-source", "preflight")
def name_resolves_to_source(ground: Ground) -> Iterator[None]:
    """A name that clients use leads to east, asked in west."""
    # An address written as one number: the resolver takes it for a name, and needs no DNS.
    address, _ = ground.live.endpoint
    ground.document["names"] = [hex(int(ip_address(address)))]
    yield


@drill("port-taken", "preflight")
def port_taken(ground: Ground) -> Iterator[None]:
    """Something listens on the port that the restored server is to have."""
    with ground.listening(ground.node):
        yield


@drill("target-occupied", "preflight")
def target_occupied(ground: Ground) -> Iterator[None]:
    """Somebody's file lies in the target directory."""
    with ground.occupied(ground.live.data):
        yield


@drill("store-region-hard-coded", "preflight")
def store_region_hard_coded(ground: Ground) -> Iterator[None]:
    """The recovery domain's store has a name that leads to east's."""
    parts = urlsplit(ground.document["source"]["store"]["endpoint"])
    name = hex(int(ip_address(parts.hostname or "")))  # needs no DNS, as above
    ground.document["recovery"]["store"]["endpoint"] = f"https://{name}:{parts.port}"
    yield


@drill("recovery-is-source", "preflight")
def recovery_is_source(ground: Ground) -> Iterator[None]:
    """A host of west has a name that leads to a host of east."""
    source = ground.document["source"]["hosts"][0]["address"]
    ground.document["recovery"]["hosts"][-1]["address"] = hex(int(ip_address(source)))
    yield


@drill("source-used", "verify", plans=(*ETCD, *GALERA))
def tool_calls(ground: Ground) -> Iterator[None]:
    """A wrapper around a program of west's calls an address of east."""
    address, port = ground.live.endpoint
    call = f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/{port}' </dev/null 2>/dev/null"
    with ground.wrapped(ground.live.tools[0], f'{call}\nexec "$REAL" "$@"'):
        yield


@drill("source-used", "verify", select="fresh", plans=POSTGRES)
def source_used(ground: Ground) -> Iterator[None]:
    """A trigger of the application calls an address of east that is in a table."""
    address, port = ground.live.endpoint
    with ground.postgres.sql_undone(
        "CREATE TABLE partners (address text, port int)",
        f"INSERT INTO partners VALUES ('{address}', {port})",
        "CREATE FUNCTION notify_partner() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$\n"
        "DECLARE call text;\n"
        "BEGIN\n"
        "  SELECT format('timeout 2 bash -c %L', format('exec 3<>/dev/tcp/%s/%s', address, port)"
        " || '; true') || ' || true' INTO call FROM partners;\n"
        "  EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', call);\n"
        "  RETURN NULL;\n"
        "END $$",
        "CREATE TRIGGER notify AFTER INSERT ON pgbench_history FOR EACH STATEMENT"
        " WHEN (pg_trigger_depth() = 0 AND current_setting('port') <> '5432')"
        " EXECUTE FUNCTION notify_partner()",
        undo=(
            "DROP TRIGGER notify ON pgbench_history",
            "DROP FUNCTION notify_partner()",
            "DROP TABLE partners",
        ),
    ):
        yield


@drill("storage-from-source", "preflight")
def storage_from_source(ground: Ground) -> Iterator[None]:
    """The directory in which west restores is a link into a directory of east."""
    data = ground.live.data
    folder = data.parent
    inside = ground.places.tree("east") / "spare"
    there = folder.exists()
    aside = folder.with_name("recovered.aside")
    if there:
        folder.rename(aside)
    inside.mkdir()
    ground.own(inside)
    folder.symlink_to(inside)
    try:
        yield
    finally:
        folder.unlink()
        shutil.rmtree(inside)
        if there:
            aside.rename(folder)


@drill("access-from-source-only", "preflight", select="fresh", plans=POSTGRES)
def access_from_source_only(ground: Ground) -> Iterator[None]:
    """East's pg_hba.conf lets the application in from east's network only."""
    network = ground.document["source"]["networks"][0]
    ((file,),) = ground.postgres.sql("SHOW hba_file")
    path = Path(file)
    text = path.read_text()
    # On loopback all others, administrators and the backup, come from no network of east's own.
    rules = f"host all shop {network} scram-sha-256\nhost all shop samenet reject\n"
    with ground.file(path, rules + text):
        ground.postgres.sql("SELECT pg_reload_conf()")
        yield
    ground.postgres.sql("SELECT pg_reload_conf()")
