"""The lab's plans: templates beside this file, rendered for one lab."""

import json
import sys
from string import Template

from deployments.lab import credentials, postgres
from deployments.lab.accounts import Account
from deployments.lab.catalogue import TEMPLATES, names, path_of
from deployments.lab.domains import RECOVERED_POSTGRES_PORT, Site
from deployments.lab.places import Places, write


def render(places: Places, sites: tuple[Site, Site], account: Account) -> None:
    """Write each plan for this lab; one that would not change is not touched."""
    values = {
        # A JSON string is a YAML scalar, whatever characters a path has.
        name: json.dumps(value)
        for name, value in _values(places, sites, account).items()
    }
    for name in names():
        text = Template((TEMPLATES / f"{name}.yaml").read_text()).substitute(values)
        target = path_of(places, name)
        if not target.exists() or target.read_text() != text:
            write(target, text)


def _values(
    places: Places, sites: tuple[Site, Site], account: Account
) -> dict[str, str | int | list[str]]:
    pins = credentials.pins(places, sites)
    values: dict[str, str | int | list[str]] = {
        "user": account.name,
        "bucket": credentials.BUCKET,
        "region": credentials.REGION,
        "signer": pins.signer,
        "recipients": list(pins.recipients.values()),
        "ledger": str(places.ledger / "heartbeat.tsv"),
        "recovered_port": RECOVERED_POSTGRES_PORT,
        "fence_raise": _command(places, "lose", "east"),
        "fence_lift": _command(places, "up"),
        "fence_observe": _command(places, "tripped"),
    }
    for site in sites:
        values |= _site_values(places, site)
        for host in site.domain.hosts:
            lead = f"{site.name}_{host.name}"
            values[lead] = site.address(host)
            values[f"{lead}_key"] = pins.host_keys[site.name, host.name]
            values[f"{lead}_work"] = str(places.host(site.name, host.name) / "farside")
    east, west = sites
    values["source_port"] = east.postgres[postgres.PRIMARY][1]
    values["open_note"] = [
        str(places.python(west.name)),
        str(places.runtime(west.name) / "open_note.py"),
    ]
    values["west_data"] = str(places.host(west.name, "db1") / "recovered" / "data")
    values["west_tablespaces"] = str(places.host(west.name, "db1") / "recovered" / "tablespaces")
    return values


def _site_values(places: Places, site: Site) -> dict[str, str | int | list[str]]:
    operator = places.operator(site.name)
    return {
        f"{site.name}_networks": [str(site.network)],
        f"{site.name}_names": [f"{site.name}.lab"],
        f"{site.name}_paths": [str(places.tree(site.name)), str(operator)],
        f"{site.name}_ssh_port": site.domain.ssh_port,
        f"{site.name}_identity": str(operator / "id_ed25519"),
        f"{site.name}_python": str(places.python(site.name)),
        f"{site.name}_bin": str(places.postgres_bin(site.name)),
        f"{site.name}_store": f"https://{site.store[0]}:{site.store[1]}",
        f"{site.name}_ca": str(operator / "ca.pem"),
        f"{site.name}_s3": str(operator / "s3.ini"),
        f"{site.name}_secrets": str(places.secrets(site.name)),
    }


def _command(places: Places, *words: str) -> list[str]:
    return [sys.executable, "-m", "deployments.lab", "--root", str(places.root), *words]
