"""The lab's plans: templates beside this file, rendered for one lab."""

import json
import sys
from collections.abc import Mapping
from string import Template
from typing import Any

import yaml

from deployments.lab import credentials, parts
from deployments.lab.accounts import Account
from deployments.lab.catalogue import TEMPLATES, names, path_of
from deployments.lab.places import Places, write
from deployments.lab.site import Site


def render(places: Places, sites: tuple[Site, Site], account: Account) -> None:
    """Write each plan for this lab; one that would not change is not touched."""
    values = {
        # A JSON string is a YAML scalar, whatever characters a path has.
        name: json.dumps(value)
        for name, value in _values(places, sites, account).items()
    }
    for name in names():
        text = _text(name, values)
        target = path_of(places, name)
        if not target.exists() or target.read_text() != text:
            write(target, text)


def _text(name: str, values: Mapping[str, str]) -> str:
    """The plan of that name; one that is `like` another says only what differs."""
    text = Template((TEMPLATES / f"{name}.yaml").read_text()).substitute(values)
    own = yaml.safe_load(text)
    if "like" not in own:
        return text
    whole = yaml.safe_load(_text(own.pop("like"), values))
    head = "".join(line for line in text.splitlines(True) if line.startswith("#"))
    return head + yaml.safe_dump(_merged(whole, own), sort_keys=False)


def _merged(whole: Any, own: Any) -> Any:
    if not isinstance(whole, dict) or not isinstance(own, dict):
        return own
    if own.get("kind", whole.get("kind")) != whole.get("kind"):
        return own  # another kind of thing has nothing of it
    return whole | {key: _merged(whole.get(key), value) for key, value in own.items()}


def _values(places: Places, sites: tuple[Site, Site], account: Account) -> dict[str, Any]:
    pins = credentials.pins(places, sites)
    values: dict[str, Any] = {
        "user": account.name,
        "bucket": credentials.BUCKET,
        "region": credentials.REGION,
        "signer": pins.signer,
        "record_signer": pins.record_signer,
        "recipients": list(pins.recipients.values()),
        "fence": _fence(places, sites[1]),
    }
    for site in sites:
        values |= _site_values(places, site)
        for host in site.domain.hosts:
            lead = f"{site.name}_{host.name}"
            values[lead] = site.address(host)
            values[f"{lead}_key"] = pins.host_keys[site.name, host.name]
            home = places.host(site.name, host.name)
            values[f"{lead}_work"] = str(home / "farside")
            values[f"{lead}_data"] = str(home / "recovered" / "data")
            values[f"{lead}_tablespaces"] = str(home / "recovered" / "tablespaces")
        for host in parts.certified(site):
            files = credentials.member_files(places, site.name, host.name)
            for kind, path in zip(("cert", "cert_key"), files, strict=True):
                values[f"{site.name}_{host.name}_{kind}"] = str(path)
    east, west = sites
    for part in parts.PARTS:
        values |= part.values(places, east, west)
    values["open_note"] = [
        str(places.python(west.name)),
        str(places.runtime(west.name) / "open_note.py"),
    ]
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
        f"{site.name}_authority": str(credentials.authority_file(places, site.name)),
        f"{site.name}_store": f"https://{site.store[0]}:{site.store[1]}",
        f"{site.name}_ca": str(operator / "ca.pem"),
        f"{site.name}_s3": str(operator / "s3.ini"),
        f"{site.name}_secrets": str(places.secrets(site.name)),
    }


def _fence(places: Places, recovery: Site) -> dict[str, Any]:
    """Commands that lose east; where hosts have networks of their own, packet filters as well."""
    losing = {
        "kind": "command",
        "raise_argv": _command(places, "lose", "east"),
        "lift_argv": _command(places, "up"),
        "observe_argv": _command(places, "tripped"),
        "check_argv": _command(places, "lose", "east", "--check"),
    }
    if not recovery.namespaces:
        return losing
    filters = {"kind": "nftables", "nft_argv": [str(places.packet_filter(recovery.name))]}
    return {"kind": "several", "fences": [losing, filters]}


def _command(places: Places, *words: str) -> list[str]:
    return [sys.executable, "-m", "deployments.lab", "--root", str(places.root), *words]
