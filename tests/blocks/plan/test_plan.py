"""Plans: what is wrong is said, with its line; nothing wrong gets through."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
import yaml

from blocks.artifact.age.keys import generate_identity, recipient_of
from blocks.artifact.manifest import generate_signing_key, public_key_of
from blocks.engines.command.facts import CommandFacts
from blocks.evidence.record import Counterpart, SourceNode
from blocks.plan.loading import PlanError, load_plan
from blocks.plan.model import Plan
from blocks.plan.values import parse_duration, parse_rate, parse_size

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"


def domain(name: str, net: int) -> str:
    return f"""
  name: {name}
  networks: [10.{net}.0.0/16]
  hosts:
    - {{kind: ssh, name: db1, address: 10.{net}.0.5, user: postgres, identity_file: /k,
       host_key: {HOST_KEY}}}
  store: {{kind: s3, endpoint: "https://10.{net}.0.9", bucket: b}}
  vault: {{kind: host, host: {{kind: local}}, directory: /secrets/{name}}}
"""


@pytest.fixture
def text() -> str:
    return f"""name: shop
source:{domain("east", 1)}
recovery:{domain("west", 2)}
engine:
  kind: postgres
  source: {{host: db1, address: 10.1.0.5, bin_dir: /bin, password: a}}
  backup: {{host: db1, bin_dir: /bin, role: r, password: b}}
  target: {{host: db1, address: 10.2.0.5, bin_dir: /bin, data_dir: /d}}
  application: {{role: shop, database: shop, password: c}}
keys:
  recipients: [{recipient_of(generate_identity())}]
  identity: id
  signer: "{public_key_of(generate_signing_key())}"
objectives: {{rto: 15m, rpo: 60s}}
transfer: {{host: db1, rate: 50Mbit/s}}
fence: {{kind: command, raise_argv: [a], lift_argv: [b], observe_argv: [c]}}
"""


def save(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(PlanError) as caught:
        load_plan(save(tmp_path, text))
    return str(caught.value)


def test_a_good_plan_loads(tmp_path: Path, text: str) -> None:
    plan = load_plan(save(tmp_path, text))
    assert plan.engine.label == "postgres"
    assert plan.objectives.rto == timedelta(minutes=15)
    assert plan.transfer.rate == 6_250_000
    assert plan.source.domain == "east" or plan.source.host("db1").domain == "east"
    assert plan.digest == load_plan(save(tmp_path, text)).digest


@pytest.mark.parametrize(
    ("old", "new", "place", "problem"),
    [
        ("rto: 15m", "rto: 15", "objectives.rto", "a duration is written like"),
        ("rto: 15m", "rto: soon", "objectives.rto", "a duration is written like"),
        ("rate: 50Mbit/s", "rate: fast", "transfer.rate", "a rate is written like"),
        ("data_dir: /d", "data_directory: /d", "engine.target.data_dir", "missing"),
        ("data_dir: /d", "data_dir: /d, colour: red", "engine.target.colour", "unknown key"),
        ("transfer: {host: db1", "transfer: {host: db7", "plan", "'db7' is not a host"),
        (
            "kind: postgres",
            "kind: oracle",
            "engine",
            "one of: command, etcd, galera, postgres",
        ),
        ("name: west", "name: east", "plan", "two different failure domains"),
        ("networks: [10.2.0.0/16]", "networks: [10.1.9.0/24]", "plan", "overlap"),
        ("recipients: [age1", "recipients: [age2", "keys.recipients[0]", ""),
        ('signer: "ed25519', 'signer: "ed25518', "keys.signer", ""),
        ("objectives:", "retention: {last: 0}\nobjectives:", "retention.last", "greater than"),
        ("objectives:", "retention: {}\nobjectives:", "retention", "give last, days or both"),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    tmp_path: Path, text: str, old: str, new: str, place: str, problem: str
) -> None:
    assert text.count(old) == 1
    said = refused(tmp_path, text.replace(old, new))
    line = text[: text.index(old)].count("\n") + 1
    wanted = [s for s in said.splitlines() if f": {place}: " in s]
    assert wanted, said
    assert problem in wanted[0]
    if place != "plan":
        number = int(wanted[0].removeprefix(f"{tmp_path}/plan.yaml:").partition(":")[0])
        assert (
            number == line
            or (problem == "missing" and abs(number - line) <= 1)
            or place == "engine"
        )


def test_the_mapping_is_of_nodes_that_there_are(tmp_path: Path, text: str) -> None:
    both = tuple(SourceNode(name, "primary") for name in ("a", "b"))
    facts = CommandFacts("7.0", 1, nodes=both)
    given = text + "topology: {mapping: {b: db1}}\n"
    plan = load_plan(save(tmp_path, given))
    shape = plan.topology_from(facts)
    assert shape.mapping == (Counterpart("a", None), Counterpart("b", "db1"))
    assert load_plan(save(tmp_path, text)).topology_from(facts).mapping == (
        Counterpart("a", "db1"),
        Counterpart("b", None),
    )
    # A node that is down must not keep a backup from being restored.
    degraded = plan.topology_from(replace(facts, nodes=both[:1]))
    assert degraded.mapping == (Counterpart("a", "db1"),)
    assert (plan.strangers(shape), plan.strangers(degraded)) == ([], ["b"])
    unknown = plan.topology_from(CommandFacts("7.0", 1))
    assert (unknown.source, unknown.mapping) == (None, None)
    said = refused(tmp_path, given.replace("{b: db1}", "{b: db9}"))
    assert "topology.mapping: 'db9' is not a host of a node that the engine's target makes" in said
    said = refused(tmp_path, given.replace("{b: db1}", "{a: db1, b: db1}"))
    assert "topology.mapping: 'db1' takes the place of several nodes" in said


ACCEPTED = """accepted:
  - finding: address-hard-coded
    subject: "shop: function notify()"
    reason: moved in Q1, see OPS-1234
    until: 2027-03-31
  - {finding: rto-missed, reason: a new link is ordered, until: "2027-01-01"}
"""


def test_accepted_risks_have_a_reason_and_an_end(tmp_path: Path, text: str) -> None:
    plan = load_plan(save(tmp_path, text + ACCEPTED))
    named, anything = plan.accepted
    assert (named.subject, named.until) == ("shop: function notify()", date(2027, 3, 31))
    assert (anything.subject, anything.until) == (None, date(2027, 1, 1))
    assert Plan.model_validate(plan.model_dump(mode="json")).digest == plan.digest


@pytest.mark.parametrize(
    ("old", "new", "place", "problem"),
    [
        ("address-hard-coded", "adress-hard-coded", "finding", "no finding is called 'adress-"),
        ("moved in Q1, see OPS-1234", '" "', "reason", "at least 1 character"),
        ("2027-03-31", "next spring", "until", "a day is written like 2027-03-31"),
        ("2027-03-31", "2027", "until", "a day is written like 2027-03-31"),
        ("    until: 2027-03-31\n", "", "until", "required, but missing"),
    ],
)
def test_a_mistake_in_an_accepted_risk(
    tmp_path: Path, text: str, old: str, new: str, place: str, problem: str
) -> None:
    said = refused(tmp_path, text + ACCEPTED.replace(old, new))
    lines = (text + ACCEPTED).splitlines()
    wanted = next(n for n, line in enumerate(lines, 1) if line.startswith("  - finding:"))
    wanted += {"finding": 0, "reason": 2, "until": 3 if "missing" not in problem else 0}[place]
    assert said.startswith(f"{tmp_path}/plan.yaml:{wanted}: accepted[0].{place}: ")
    assert problem in said


def test_all_mistakes_are_reported_at_once(tmp_path: Path, text: str) -> None:
    broken = text.replace("rto: 15m", "rto: x").replace("rpo: 60s", "rpo: y")
    assert len(refused(tmp_path, broken).splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "a plan is a mapping"),
        ("- a\n- b\n", "a plan is a mapping"),
        ("name: [unclosed", "not YAML"),
        ("name: a\nname: b\n", "name: given twice"),
    ],
)
def test_what_is_no_plan(tmp_path: Path, content: str, problem: str) -> None:
    assert problem in refused(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"nowhere\.yaml: cannot be read"):
        load_plan(tmp_path / "nowhere.yaml")


def test_yaml_cannot_run_code(tmp_path: Path) -> None:
    assert "not YAML" in refused(tmp_path, "name: !!python/object/apply:os.system [true]\n")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2h", 7200), ("1.5s", 1.5), ("1h 5m 3s", 3903)],
)
def test_durations(given: str, seconds: float) -> None:
    assert parse_duration(given) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("given", "bytes_a_second"),
    [
        *(("8bit/s", 1), ("50Mbit/s", 6_250_000), ("20MB/s", 20_000_000), ("1Gbps", 125_000_000)),
        *(("1bit/s", 1), ("0.5 KB/s", 500), ("16MiB/s", 16 << 20), (7, 7)),
    ],
)
def test_rates(given: object, bytes_a_second: int) -> None:
    assert parse_rate(given) == bytes_a_second


@pytest.mark.parametrize(
    "given",
    [
        "",
        "50",
        "0MB/s",
        "50M/s",
        "50mbit/s",
        "50MB",
        "fast",
        "-1MB/s",
        "1.5.2MB/s",
        None,
        True,
        1.5,
    ],
)
def test_no_rates(given: object) -> None:
    with pytest.raises(ValueError, match="a rate is written like 50Mbit/s or 20MB/s, and is above"):
        parse_rate(given)


@pytest.mark.parametrize(
    ("given", "size"),
    [
        *(("512B", 512), ("20GB", 20 * 10**9), ("20 kB", 20_000), ("1.5TB", 15 * 10**11)),
        *(("3KB", 3000), ("1.1GB", 1_100_000_000), ("20GiB", 20 << 30), ("0.5KiB", 512), (7, 7)),
    ],
)
def test_sizes(given: object, size: int) -> None:
    assert parse_size(given) == size
    assert type(parse_size(given)) is int


@pytest.mark.parametrize(
    "given",
    [
        *("", "20", "0GB", "0.0B", "-1GB", "20g", "20gb", "20Gbit", "20GB/s", "20GB of log"),
        *("1.5.2GB", "1e3GB", "GB", None, True, 1.5, [20]),
    ],
)
def test_no_sizes(given: object) -> None:
    with pytest.raises(ValueError, match="a size is written like 500GB or 2TB, and is above zero"):
        parse_size(given)


def test_a_bad_size_is_told_with_its_line(text: str, tmp_path: Path) -> None:
    assert "production" not in text
    lines = len(text.splitlines())
    told = refused(tmp_path, f"{text}\nproduction: {{size: 2 terabytes}}\n")
    assert f":{lines + 2}: production.size: a size is written like 500GB or 2TB" in told


@pytest.mark.parametrize("given", ["", "5", "-1s", "fast", "1d", 7, None, True])
def test_no_durations(given: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(given)


def test_a_saved_plan_is_the_same_plan(text: str) -> None:
    plan = Plan.model_validate(yaml.safe_load(text))
    again = Plan.model_validate(plan.model_dump(mode="json"))
    assert again.digest == plan.digest
