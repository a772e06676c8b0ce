"""What a plan's text, and farside's own files, show to be wrong is refused with its line."""

from pathlib import Path

import pytest

from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.manifest import generate_signing_key, public_key_of
from blocks.plan.loading import PlanError, load_plan

PLAN = """name: shop
source:
  name: east
  networks: [10.1.0.0/16, "2001:db8:1::/48"]
  names: [east.example]
  hosts:
    - {kind: ssh, name: db1, address: pg1.site.example, user: a, identity_file: FOLDER/k}
    - {kind: ssh, name: db2, address: 203.0.113.7, user: a, identity_file: FOLDER/k}
  store: {kind: s3, endpoint: "https://10.1.0.9", bucket: b, ca_file: FOLDER/ca.pem}
  vault: {kind: host, host: {kind: local}, directory: FOLDER/vault}
recovery:
  name: west
  networks: [10.2.0.0/16]
  hosts:
    - kind: ssh
      name: db1
      address: 10.2.0.5
      port: 22
      user: a
      work_dir: /var/tmp/farside
      identity_file: FOLDER/k
  store:
    kind: s3
    endpoint: https://10.2.0.9:9000
    bucket: b
  vault:
    kind: host
    directory: /secrets
    host:
      kind: ssh
      name: vault
      address: 10.2.0.10
      user: a
      identity_file: FOLDER/k
engine:
  kind: postgres
  source: {host: db1, address: 198.51.100.4, bin_dir: /bin, password: a}
  backup: {host: db1, bin_dir: /bin, role: r, password: b}
  target:
    host: db1
    address: 10.2.0.5
    port: 5432
    bin_dir: /bin
    data_dir: /srv/data
  application: {role: shop, database: shop, password: c}
keys:
  recipients: [RECIPIENT]
  identity: id
  signer: "SIGNER"
objectives: {rto: 15m, rpo: 60s}
transfer: {host: db1}
fence: {kind: command, raise_argv: [a], lift_argv: [b]}
accepted:
  - finding: rto-missed
    reason: a link is ordered
    until: 2099-01-01
"""


@pytest.fixture
def text(tmp_path: Path) -> str:
    (tmp_path / "k").write_text("key")
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    (tmp_path / "vault").mkdir()
    return (
        PLAN.replace("FOLDER", str(tmp_path))
        .replace("RECIPIENT", recipient_of(generate_identity()))
        .replace("SIGNER", public_key_of(generate_signing_key()))
    )


def refused(folder: Path, text: str, *, local_files: bool = False) -> list[str]:
    path = folder / "plan.yaml"
    path.write_text(text)
    with pytest.raises(PlanError) as caught:
        load_plan(path, local_files=local_files)
    return str(caught.value).splitlines()


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


def test_a_good_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    assert load_plan(tmp_path / "plan.yaml", local_files=True).name == "shop"


HOST, VAULT, TARGET = "recovery.hosts[0].address", "recovery.vault.host.address", "engine.target"
OLD = {
    HOST: "      address: 10.2.0.5\n",
    VAULT: "      address: 10.2.0.10\n",
    f"{TARGET}.address": "    address: 10.2.0.5\n    port",
    "recovery.store.endpoint": "endpoint: https://10.2.0.9:9000",
}


@pytest.mark.parametrize("place", [HOST, VAULT, f"{TARGET}.address"])
@pytest.mark.parametrize(
    "address",
    [
        "10.1.255.1",  # in a network
        '"::ffff:10.1.0.5"',
        '"::ffff:a01:5"',
        '"64:ff9b::10.1.0.5"',
        '"2001:DB8:1:0:0:0:0:5"',
        "203.0.113.7",  # a host outside of the networks
        '"::ffff:203.0.113.7"',
        "PG1.Site.Example.",  # a host's name
        "db7.east.example",  # a name of the domain
        "198.51.100.4",  # a server that the engine asks
    ],
)
def test_a_part_of_the_recovery_that_is_the_sources(
    tmp_path: Path, text: str, place: str, address: str
) -> None:
    old = OLD[place]
    new = old.replace("10.2.0.10", address).replace("10.2.0.5", address)
    assert text.count(old) == 1
    said = refused(tmp_path, text.replace(old, new))
    begin = f"{tmp_path}/plan.yaml:{line_of(text, old)}: {place}: {address.strip(chr(34))} is an"
    assert [line.startswith(begin) for line in said] == [True], said


@pytest.mark.parametrize("host", ["10.1.0.9", "[2001:db8:1::9]", "[::ffff:10.1.0.9]"])
def test_a_recovery_store_that_is_the_sources(tmp_path: Path, text: str, host: str) -> None:
    old = OLD["recovery.store.endpoint"]
    (said,) = refused(tmp_path, text.replace(old, f'endpoint: "https://{host}:9001"'))
    assert f":{line_of(text, old)}: recovery.store.endpoint: " in said


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("port: 22", "port: 0", "recovery.hosts[0].port: "),
        ("port: 22", "port: 99999", "recovery.hosts[0].port: "),
        ("    port: 5432", "    port: 99999", "engine.target.port: "),
        ("    port: 5432", "    port: -1", "engine.target.port: "),
        ("10.2.0.9:9000", "10.2.0.9:99999", "a port is a number from 1 to 65535"),
        ("10.2.0.9:9000", "10.2.0.9:0", "a port is a number from 1 to 65535"),
        ("https://10.2.0.9", "http://10.2.0.9", "recovery.store.endpoint: "),
        ("data_dir: /srv/data", "data_dir: srv/data", "engine.target.data_dir: "),
        ("data_dir: /srv/data", "data_dir: /srv/../data", "without .."),
        ("data_dir: /srv/data", "data_dir: /", "no absolute path below /"),
        ("data_dir: /srv/data", 'data_dir: "/srv/da\\0ta"', "control character"),
        ("data_dir: /srv/data", 'data_dir: "/srv/da\\nta"', "control character"),
        ("work_dir: /var/tmp/farside", "work_dir: /var/../tmp", "recovery.hosts[0].work_dir: "),
        ("work_dir: /var/tmp/farside", "work_dir: tmp", "recovery.hosts[0].work_dir: "),
        ("directory: /secrets", "directory: /a/../secrets", "recovery.vault.directory: "),
        ("finding: rto-missed", "finding: fence-leaks", "broken isolation"),
        ("finding: rto-missed", "finding: source-used", "broken isolation"),
        ("finding: rto-missed", "finding: restored-jobs-fire", "broken isolation"),
        ("finding: rto-missed", "finding: service-more-open", "broken isolation"),
        ("finding: rto-missed", "finding: recovery-is-source", "cannot be accepted"),
    ],
)
def test_what_else_is_refused(tmp_path: Path, text: str, old: str, new: str, says: str) -> None:
    assert text.count(old) == 1, old
    (said,) = refused(tmp_path, text.replace(old, new))
    assert says in said
    assert said.startswith(f"{tmp_path}/plan.yaml:{line_of(text, old)}: ")


@pytest.mark.parametrize(
    ("theirs", "ours", "says"),
    [
        ("names: [east.example]", "names: [East.Example]", "recovery.names[0]: East.Example is"),
        ("names: [east.example]", "names: [w.East.example.]", "recovery.names[0]: w.East"),
        ("names: [example]", "names: [other.org, west.example]", "recovery.names[1]: west."),
        ("paths: [/mnt]", "paths: [/mnt/west]", "recovery.paths[0]: /mnt/west is"),
    ],
)
def test_what_is_inside_the_sources(
    tmp_path: Path, text: str, theirs: str, ours: str, says: str
) -> None:
    """It would be attributed to the source, whatever else the plan says."""
    west = "name: west\n"
    changed = text.replace("names: [east.example]", theirs).replace(west, f"{west}  {ours}\n")
    (said,) = refused(tmp_path, changed)
    assert f":{line_of(changed, ours)}: {says}" in said


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("by", ["vault", "paths"])
def test_a_vault_here_that_is_the_sources(
    tmp_path: Path, text: str, by: str, linked: bool, inside: bool
) -> None:
    place = tmp_path / "vault"
    if by == "paths":
        place = tmp_path / "mount"
        text = text.replace("names: [east.example]", f"paths: [{place}]")
    if inside:
        place /= "west"
    place.mkdir(parents=True, exist_ok=True)
    if linked:
        (tmp_path / "link").symlink_to(place)
        place = tmp_path / "link"
    old = text[text.index("    directory: /secrets") :].split("engine:")[0]
    new = f"    directory: {place}\n    host: {{kind: local}}\n"
    assert text.count(old) == 1
    changed = text.replace(old, new)
    (said,) = refused(tmp_path, changed)
    line = line_of(changed, f"    directory: {place}\n    host")
    assert f":{line}: recovery.vault.directory: {place} is" in said


def test_isolation_is_accepted_of_a_subject(tmp_path: Path, text: str) -> None:
    new = "finding: source-used\n    subject: 10.1.0.7:53"
    (tmp_path / "plan.yaml").write_text(text.replace("finding: rto-missed", new))
    assert load_plan(tmp_path / "plan.yaml").accepted[0].subject == "10.1.0.7:53"


@pytest.mark.parametrize(
    ("file", "content", "places"),
    [
        ("k", None, ["source.hosts[0]", "source.hosts[1]", "recovery.hosts[0]", "recovery.vault"]),
        ("k", "", ["source.hosts[0]", "source.hosts[1]", "recovery.hosts[0]", "recovery.vault"]),
        ("ca.pem", None, ["source.store.ca_file"]),
        ("ca.pem", "\n", ["source.store.ca_file"]),
        ("ca.pem", "no certificate", ["source.store.ca_file"]),
        ("vault", None, ["source.vault.directory"]),
    ],
)
def test_files_here_are_looked_for_where_that_is_asked(
    tmp_path: Path, text: str, file: str, content: str | None, places: list[str]
) -> None:
    path = tmp_path / file
    if path.is_dir():
        path.rmdir()
    elif content is None:
        path.unlink()
    else:
        path.write_text(content)
    said = refused(tmp_path, text, local_files=True)
    assert len(said) == len(places)
    for line, place in zip(said, places, strict=True):
        assert f": {place}" in line
        assert str(path) in line
    assert load_plan(tmp_path / "plan.yaml").name == "shop", "a check without local files"


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        (
            """engine:
  kind: etcd
  source: {host: db1, endpoints: ["https://198.51.100.4:2379"], bin_dir: /bin, ca_file: /ca}
  target:
    bin_dir: /bin
    ca_file: /ca
    members: [{host: db1, address: 10.2.0.5, data_dir: /d, cert_file: /c, key_file: /k}]
  application: {prefix: /shop/}
""",
            "search_rows: not with engine etcd: all keys and values of etcd are searched anyway",
        ),
        (None, None),
    ],
)
def test_rows_are_searched_where_there_are_any(
    tmp_path: Path, text: str, engine: str | None, why: str | None
) -> None:
    """Another engine refuses the field, with its line."""
    if engine:
        begin, end = text.index("engine:"), text.index("keys:")
        text = text[:begin] + engine + text[end:]
    text += "search_rows: true\n"
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    if why is None:
        assert load_plan(path).search_rows
        return
    assert refused(tmp_path, text) == [f"{path}:{len(text.splitlines())}: {why}"]
    path.write_text(text.replace("search_rows: true", "search_rows: false"))
    assert not load_plan(path).search_rows
