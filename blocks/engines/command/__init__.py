"""Any other system: a plan gives the commands that back it up, restore it, and ask it.

Around them everything is as for the databases that farside knows: backups are streamed, sealed,
signed, carried across and opened on the recovery host with that domain's own key; the source is
cut off; every step is timed, every use noted; what was made is removed.

In a command's words, `{backup}`, `{directory}`, `{address}`, `{port}` and `{work}` stand for the
opened backup, the service's directory, where it is to listen, and a directory of the rehearsal's.
A command with a password reads it as the first line of its standard input.
"""

from blocks.engines.command.engine import Command

__all__ = ["Command"]
