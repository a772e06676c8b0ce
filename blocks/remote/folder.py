"""A rehearsal's directory on a host: made, and removed where nothing uses it."""

from blocks.agent import marks
from blocks.errors import PermanentError
from blocks.evidence.catalogue import FindingId
from blocks.hosts.host import Host
from blocks.hosts.process import CommandFailed

_UNTRUSTED = 77
# Nothing that another account could have put there is used: see blocks.agent.trust.
_FOLDER = r"""
umask 077
refuse() { echo "$1" >&2; exit 77; }
uid=$(id -u)
check() {
    set -- "$1" "$2" $(LC_ALL=C ls -ldn "$1")
    [ "$#" -gt 5 ] || refuse "$1 cannot be looked at"
    case $3 in l*) refuse "$1 is a link: give the path that it leads to" ;; esac
    [ "$5" = "$uid" ] || { [ "$2" = above ] && [ "$5" = 0 ]; } ||
        refuse "$1 belongs to another account (uid $5)"
    case $2$3 in
        above?????????[tT]*) ;;
        *) case $3 in ?????w*|????????w*) refuse "other accounts may write to $1" ;; esac ;;
    esac
}
[ -d "$1" ] || mkdir -p "$1" || exit
above=$1
while [ "$above" != / ]; do
    above=${above%/*}
    above=${above:-/}
    check "$above" above
done
check "$1" own
mkdir "$1/$2" 2>/dev/null || [ -d "$1/$2" ] || refuse "$1/$2 cannot be made"
check "$1/$2" own
: >> "$1/$2/$3" || exit
check "$1/$2/$3" own
"""


class WorkDirUntrusted(PermanentError):
    """Another account could have written farside's directory on a host, or what is in it."""

    finding = FindingId.WORK_DIR_UNTRUSTED


def work_folder(host: Host, rehearsal_id: str) -> str:
    """Make the rehearsal's directory on `host` and the marker in it; returns the directory.

    Mode 0700. Without the marker no sweep would know it. Raises WorkDirUntrusted, and what
    `Host.run` raises.
    """
    root = host.work_root
    try:
        host.run(["sh", "-c", _FOLDER, "sh", root, rehearsal_id, marks.FILE])
    except CommandFailed as error:
        if error.exit_code != _UNTRUSTED:
            raise
        raise WorkDirUntrusted(
            error.stderr,
            operation="work directory",
            domain=host.domain,
            host=host.name,
            hint="give the host a work_dir that only its account can write to",
        ) from None
    return f"{root}/{rehearsal_id}"


def remove_unused_folder(host: Host, rehearsal_id: str) -> bool:
    """Remove a rehearsal's directory if its marker names nothing; True if it is not there now.

    For hosts on which the agent cannot run, and so has made nothing. Raises what `Host.run` does.
    """
    script = '[ -s "$1/$2" ] || rm -rf "$1"; [ ! -e "$1" ]'
    folder = f"{host.work_root}/{rehearsal_id}"
    return host.run(["sh", "-c", script, "sh", folder, marks.FILE], check=False).exit_code == 0
