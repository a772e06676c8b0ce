"""Hosts: run a command, start one and talk to it, put a small file, get one."""

from typing import Annotated

from pydantic import Field

from blocks.hosts.local import LocalHost
from blocks.hosts.ssh import SSHHost

AnyHost = Annotated[SSHHost | LocalHost, Field(discriminator="kind")]
"""Any kind of host, told apart by `kind`."""
