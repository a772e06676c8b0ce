"""Drills of topology and addressing."""

from collections.abc import Iterator
from ipaddress import ip_address

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
    """The recovery domain's store has the endpoint of east's."""
    source = ground.document["source"]["store"]
    ground.document["recovery"]["store"]["endpoint"] = source["endpoint"]
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
