"""Quantities and foreign text as people can read them."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def size(count: float) -> str:
    """Bytes in decimal units, three digits that count: 512 B, 1.50 MB, 24.7 MB, 151 MB."""
    scale = 0
    while count >= 999.5 and scale < len(_UNITS) - 1:
        count /= 1000
        scale += 1
    digits = 0 if scale == 0 or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {_UNITS[scale]}"


def rate(count: int | None, seconds: float | None) -> str:
    """Bytes a second (24.7 MB/s); empty if one of them is not known or no time passed."""
    return f"{size(count / seconds)}/s" if count is not None and seconds else ""


def duration(seconds: float) -> str:
    """Seconds as 0.42 s, 8.4 s, 75.0 s, 12 min 05 s, 3 h 07 min."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 119.95:
        return f"{seconds:.{2 if seconds < 0.995 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def printable(text: str) -> str:
    """Text from hosts and databases on one line, unable to steer a terminal."""
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else "?" for char in line)
