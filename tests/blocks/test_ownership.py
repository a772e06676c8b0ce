"""Where a text mentions what belongs to a domain."""

import base64
import json
import re
import time
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.ownership import Belongings, hosts_in

EAST = Belongings(
    networks=("10.1.0.0/16", "fd00:1::/32"),
    suffixes=("east.example",),
    places=("192.0.2.7", "vault.example.org"),
    paths=("/mnt/east",),
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host=10.1.2.3 port=5432", ["10.1.2.3"]),
        ("postgres://u:p@10.1.2.3:5432/db", ["10.1.2.3"]),
        ("'10.1.2.3','10.1.2.3'", ["10.1.2.3"]),
        ("server db1.east.example;", ["db1.east.example"]),
        ("DB1.East.Example.", ["DB1.East.Example"]),
        ("east.example", ["east.example"]),
        ("[fd00:1::5]:443", ["fd00:1::5"]),
        ("curl https://vault.example.org/x", ["vault.example.org"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("*.east.example", ["east.example"]),
        ("地址10.1.2.3在", ["10.1.2.3"]),
        ("host_10.1.2.3", ["10.1.2.3"]),
        ("10.1.2.3B", ["10.1.2.3"]),
        ("root:0:0:10.1.2.3", ["10.1.2.3"]),
        ("[::ffff:10.1.2.3]:5432", ["10.1.2.3"]),
        ("addr:fd00:1::5 scope", ["fd00:1::5"]),
        ("to fd00:1::5: refused", ["fd00:1::5"]),
        # Escaped, once and again.
        (r'{"conf": "listen 5432\n10.1.2.3 db"}', ["10.1.2.3"]),
        (r'{"conf": "{\"listen\": \"\\n10.1.2.3\"}"}', ["10.1.2.3"]),
        (r"\u000a10.1.2.3\u000d", ["10.1.2.3"]),
        (r"\x0a10.1.2.3, \01210.1.2.4", ["10.1.2.3", "10.1.2.4"]),
        ("http%3A%2F%2F10.1.2.3%2Fdb", ["10.1.2.3"]),
        ("http%253A%252F%252F10.1.2.3", ["10.1.2.3"]),
        ("u:p%4010.1.2.3/db", ["10.1.2.3"]),
        ("%5Bfd00%3A1%3A%3A5%5D", ["fd00:1::5"]),
        (r"\ndb1.east.example:5432", ["db1.east.example"]),
        ("%2Fdb1.east.example", ["db1.east.example"]),
        # What only looks escaped.
        (r"\\10.1.2.3\share", ["10.1.2.3"]),
        ("LIKE '%10.1.2.3%'", ["10.1.2.3"]),
        ("LIKE '%db1.east.example%'", ["db1.east.example"]),
        # In a name that holds it.
        ("db=ip-10-1-2-3.ec2.internal:5432", ["ip-10-1-2-3.ec2.internal"]),
        ("10-1-2-3.shop.pod.cluster.local", ["10-1-2-3.shop.pod.cluster.local"]),
        ("https://db.10.1.2.3.nip.io/x", ["db.10.1.2.3.nip.io"]),
        ("db-10-1-2-3.sslip.io", ["db-10-1-2-3.sslip.io"]),
        # What only looks like it.
        ("shop-10-1-2-3.sql.gz", []),
        ("ip-10-10-2-3.ec2.internal", []),
        ("ip-10-1-2-300.ec2.internal", []),
        (r"C:\v10.1.2.3\bin", []),
        ("v10.1.2.3", []),
        ("version 1.10.1.2.3", []),
        ("10.1.2.3000", []),
        ("libfoo-10.1.2.3.so", []),
        ("10.1.2.3.in-addr.arpa", []),
        ("10.10.1.2 and 110.1.2.3", []),
        ("version 10.1.2.3.4", []),
        ("northeast.example", []),
        ("db1.east.example.com", []),
        ("12:30:45", []),
        ("select a::int", []),
    ],
)
def test_places(text: str, found: list[str]) -> None:
    assert EAST.places_in(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("/mnt/east", ["/mnt/east"]),
        ("COPY t FROM '/mnt/east/x.csv'", ["/mnt/east"]),
        ("file:///mnt/east/x", ["/mnt/east"]),
        (r"x\n/mnt/east", ["/mnt/east"]),
        (r"\/mnt\/east\/x", ["/mnt/east"]),
        ("dir=%2Fmnt%2Feast%2Fx", ["/mnt/east"]),
        (r"\\u002fmnt\\u002feast", ["/mnt/east"]),
        ("目录/mnt/east", ["/mnt/east"]),
        ("/mnt//east/x", ["/mnt/east"]),
        ("//mnt/./east", ["/mnt/east"]),
        ("/mnt/a/../east/x", ["/mnt/east"]),
        ("/mnt/a/b/.././../east", ["/mnt/east"]),
        ("/mnt/east/../west", ["/mnt/east"]),
        ("/mnt/eastern/x", []),
        ("/srv/mnt/east-2", []),
    ],
)
def test_paths(text: str, found: list[str]) -> None:
    assert EAST.paths_in(text) == found


@pytest.mark.parametrize(
    "unit",
    [
        "x",
        "1.",
        "a..",
        "1:",
        "%2",
        "\\\\n",
        "/a",
        "://",
        "host=",
        "-a@",
        "a_",
        "''",
        "a||",
        "concat(",
        "a ",
        ";a",
        "${a:-",
        "HOST",
    ],
)
def test_a_long_line_takes_no_long_time(unit: str) -> None:
    began = time.process_time()
    list(EAST.lines(unit * 2**17 + "9"))
    assert time.process_time() - began < 10


def test_lines_are_counted_from_one() -> None:
    text = "a\nhost 10.1.0.9 on /mnt/east\n\nb.east.example"
    assert list(EAST.lines(text)) == [
        (2, "10.1.0.9"),
        (2, "/mnt/east"),
        (4, "b.east.example"),
    ]


@given(st.ip_addresses(), st.text(" \t'\"=,;()@<>", min_size=1, max_size=3))
def test_every_address_of_its_networks_and_no_other(address: object, around: str) -> None:
    ip = ip_address(str(address))
    own = ip in IPv4Network("10.1.0.0/16") or ip in IPv6Network("fd00:1::/32")
    own = own or str(ip) == "192.0.2.7"
    assert EAST.places_in(f"x{around}{ip}{around}y") == ([str(ip)] if own else [])


@given(st.ip_addresses(network="10.1.0.0/16"))
def test_its_own_are_found(address: object) -> None:
    assert EAST.places_in(f"host={address} x") == [str(address)]


def _as_json(text: str) -> str:
    return json.dumps({"v": f"x\n{text}\t", "w": f"é{text}ü"})


def _as_record(text: str) -> str:
    doubled = text.replace("\\", "\\\\").replace('"', '""')
    return f'(0,1) (7,"{doubled}")'


def _as_bytea(text: str) -> str:
    raw = text.encode().replace(b"\\", rb"\\")
    return "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in raw)


WRAPS: dict[str, Callable[[str], str]] = {
    "json": _as_json,
    "ascii": lambda text: json.dumps(f"\u4e3b{text}\u4e3b"),
    "escaped": lambda text: _as_json(text).replace("/", r"\/"),
    "url": lambda text: f"to={quote(f'http://{text}/', safe='')}&x",
    "user": lambda text: f"http://u:{quote(f'p@{text}', safe='')}/db",
    "record": _as_record,
    "bytea": lambda text: _as_bytea(f"é\n{text}\n"),
    "unicode": lambda text: rf"\u000a{text}\u002f",
    "hex": lambda text: rf"\x0a{text}\x2f",
    "underscore": lambda text: f"host_ {text}",
}
wrapped = st.lists(st.sampled_from(sorted(WRAPS)), max_size=3)


def _wrap(text: str, ways: list[str]) -> str:
    for way in ways:
        text = WRAPS[way](text)
    return text


own_addresses = st.one_of(
    st.ip_addresses(network="10.1.0.0/16"), st.ip_addresses(network="fd00:1::/32")
).map(str)
own_places = st.one_of(
    own_addresses,
    st.sampled_from(["192.0.2.7", "vault.example.org", "db1.east.example", "::ffff:a01:203"]),
)


@given(own_places, wrapped)
def test_whatever_it_is_wrapped_into_it_is_found(place: str, ways: list[str]) -> None:
    text = _wrap(place, ways)
    assert place in EAST.places_in(text), text
    assert re.search(EAST.likely(), text, re.IGNORECASE), text


@given(
    st.one_of(
        st.ip_addresses(network="10.1.0.0/16").map(str),
        st.sampled_from(["192.0.2.7", "db1.east.example"]),
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20),
    st.sampled_from(
        [base64.b64encode, base64.urlsafe_b64encode, lambda data: b"\\x" + data.hex().encode()]
    ),
)
def test_what_is_encoded_is_found(
    place: str, before: str, encode: Callable[[bytes], bytes]
) -> None:
    text = f"secret: {encode(f'{before} http://{place}/x'.encode()).decode()},"
    assert place in EAST.places_in(text), text
    assert re.search(EAST.likely(), text, re.IGNORECASE), text
    path = encode(f"{before} /mnt/east/x".encode()).decode()
    assert EAST.paths_in(path) == ["/mnt/east"], path
    assert re.search(EAST.likely(), path, re.IGNORECASE), path


def test_words_and_digests_are_not_decoded() -> None:
    words = "a_long_identifier_of_the_code and-one-with-hyphens-in-it"
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert list(EAST.lines(f"{words} {digest} {base64.b64encode(bytes(range(90))).decode()}")) == []


@given(wrapped)
def test_a_path_and_a_host_are_found_whatever_they_are_wrapped_into(ways: list[str]) -> None:
    assert EAST.paths_in(_wrap("/mnt/east/x", ways)) == ["/mnt/east"]
    assert re.search(EAST.likely(), _wrap("/mnt/east/x", ways), re.IGNORECASE)
    assert "db7" in hosts_in(_wrap("https://db7:5432/x", ways))


@given(
    st.one_of(
        st.ip_addresses(v=4).map(str),
        st.ip_addresses(network="10.1.0.0/16").map(lambda ip: f"1{ip}"),
        st.ip_addresses(network="10.1.0.0/16").map(lambda ip: f"1.{ip}"),
        st.ip_addresses(network="10.1.0.0/16").map(lambda ip: f"{ip}000"),
        st.just("vault.example.organic"),
        st.just("northeast.example"),
    ),
    wrapped,
)
def test_whatever_it_is_wrapped_into_no_other_is_found(place: str, ways: list[str]) -> None:
    if not EAST.owns_name(place):
        assert list(EAST.lines(_wrap(place, ways))) == []


@given(st.text(st.sampled_from("10.:/%\\unxfdmeast25 ") | st.characters(), max_size=60))
def test_what_mentions_it_is_likely_to(text: str) -> None:
    if any(EAST.lines(text)):
        assert re.search(EAST.likely(), text, re.IGNORECASE)


def test_what_nothing_belongs_to_is_never_likely() -> None:
    assert re.search(Belongings().likely(), "anything\nat all") is None


@pytest.mark.parametrize(
    ("text", "mentions"),
    [
        ("REGION=east\nHOST=db1.${REGION}.example", [(2, "db1.east.example")]),
        ("export R=east\nurl: http://$R.example/", [(2, "east.example")]),
        ("[db]\nregion = east\nhost = db1.%(region)s.example", [(3, "db1.east.example")]),
        ("set R=east\nping db1.%R%.example", [(2, "db1.east.example")]),
        ("HOST=db1.${REGION}.example", []),
        ("SELECT 'db1.' || 'east.example'", [(1, "db1.east.example")]),
        ("SELECT '//10.1' || '.0.12/shop'", [(1, "10.1.0.12")]),
        ("SELECT E'//10.1' || E'.0.12/shop'", [(1, "10.1.0.12")]),
        ("SELECT concat('//10.1', '.0', '.12/shop')", [(1, "10.1.0.12")]),
        ("SELECT concat_ws(', ', '10.1', '.0.12')", []),
        ("psql -h ${HOST:-db1.east.example}", [(1, "db1.east.example")]),
        ("psql -hdb1.east.example", [(1, "hdb1.east.example")]),
        ("region: east\nhost: db1.{{ region }}.example", [(2, "db1.east.example")]),
        ("region = 'east'\nhost = f'db1.{region}.example'", [(2, "db1.east.example")]),
        ("the-db1.east.examples", []),
        # As PostgreSQL shows definitions, and calls that compose.
        (
            "(('db1.'::text || 'east'::text) || '.example'::character varying)",
            [(1, "db1.east.example")],
        ),
        ("concat_ws('.'::text, 'db1', 'east', 'example')", [(1, "db1.east.example")]),
        ("format('https://%s.%s.example/', 'db1', 'east')", [(1, "db1.east.example")]),
        ('"{}.{}.example".format("db1", "east")', [(1, "db1.east.example")]),
        (
            "'db1.' || COALESCE(current_setting('app.site'::text, true), 'east'::text)"
            " || '.example'",
            [(1, "db1.east.example")],
        ),
        # Values for want of others, and several on a line.
        ("curl db1.${SITE:-east}.example", [(1, "db1.east.example")]),
        (': "${ZONE:=east}"\ncurl db1.$ZONE.example', [(2, "db1.east.example")]),
        ("S=${S:-east}\ncurl db1.$S.example", [(2, "db1.east.example")]),
        ('sub="east"; dom="example"\nping $sub.$dom', [(2, "east.example")]),
        ("z text DEFAULT 'east'::text\nRETURN 'vat.'||z||'.example'", [(2, "vat.east.example")]),
        ("DECLARE z text := 'east';\nRETURN 'vat.'||z||'.example'", [(2, "vat.east.example")]),
        (
            "z text := 'east';\nRETURN concat_ws('.', 'vat', z, 'example')",
            [(2, "vat.east.example")],
        ),
        ('SITE = "east"\nHOST = "tax." + SITE + ".example"', [(2, "tax.east.example")]),
        # Networks as people write them.
        ("allow 10.1.*.*", [(1, "10.1.")]),
        ("allow 10.1.7.*", [(1, "10.1.")]),
        ("no_proxy=10.1/16", [(1, "10.1.")]),
        ("zone 0.1.10.in-addr.arpa", [(1, "0.1.10.in-addr.arpa")]),
        ("zone 0.2.10.in-addr.arpa, in 10.1/24 cases", []),
        ("addr LIKE '10.1.%'", [(1, "10.1.")]),
        (r"a ~ '^10\.1\.'", [(1, "10.1.")]),
        (r"CHECK (u ~ '^https://[a-z0-9]+\.east\.example/')", [(1, "east.example")]),
        ("addr LIKE '10.2.%' OR addr LIKE '110.1.%'", []),
        ("version 10.1.x of 2020, pip install x==10.1.*", []),
        ("it is 10.1. And more", []),
    ],
)
def test_what_is_composed_and_patterns_are_found(
    text: str, mentions: list[tuple[int, str]]
) -> None:
    found = list(EAST.lines(text))
    assert [item for item in found if item in mentions] == mentions
    assert bool(found) == bool(mentions)


@pytest.mark.parametrize(
    "text",
    [
        "REDIS_HOST=erpdb",
        'PGHOST: "erpdb"',
        "export BACKUP_HOST='erpdb'",
        '{"cacheServer": "erpdb"}',
        'os.environ.get("WALHOST", "erpdb")',
        "{{ cache_host | default('erpdb') }}",
        "erpdb:5432:*:shop:x",
        "jdbc:oracle:thin:@erpdb:1521:X",
        "psql -h erpdb -p 5432",
        "ssh erpdb vip-up",
        "pgbackrest --repo1-host=erpdb restore",
        '{"erp": {"host": "erpdb"}}',
        "smtp:\n  server: erpdb",
        "redis://erpdb:6379/0",
        "ssh://git@erpdb/srv",
    ],
)
def test_a_short_name_where_a_text_uses_it_as_a_host(text: str) -> None:
    assert "erpdb" in hosts_in(text)
    # So it is among the rows that are looked at.
    assert re.search(Belongings(aliases=("erpdb",)).likely(), text, re.IGNORECASE)


def test_a_word_is_no_host() -> None:
    for text in ("ghost erpdb 12:30", "df -h /erpdb", "motto=erpdb app", "tool -help"):
        assert hosts_in(text) == [], text
    assert hosts_in("log_hostname = off") == []


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("ssh backup true", ["backup"]),
        ("ssh etl@localhost cat /x.csv", ["localhost"]),
        ("ssh archiver@backup.east.lab put", ["backup.east.lab"]),
        ("rsync -e ssh %p keeper@h.west.lab:/x", ["h.west.lab"]),
    ],
)
def test_the_user_of_a_remote_command_is_no_host(text: str, hosts: list[str]) -> None:
    assert hosts_in(text) == hosts
