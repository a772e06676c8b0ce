"""The agent as one file: a zip that Python runs. Equal sources give equal bytes."""

import dis
import hashlib
import importlib.util
import io
import marshal
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

_BLOCKS = Path(__file__).parent.parent
_NOT_CARRIED = {_BLOCKS / "agent/bundle.py", _BLOCKS / "artifact/age/__main__.py"}
_MAIN = "import sys\n\nfrom blocks.agent.__main__ import main\n\nsys.exit(main())\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BUILDING = threading.Lock()


def build(program: str = "") -> bytes:
    """The zip's bytes, to be run as `PYTHON FILE`. Built once, however many hosts want it.

    `program` is the whole name of a module to bring for a ProgramJob. It may import what the agent
    does, and nothing that the packages it lies in do: of those only the names are brought.
    """
    with _BUILDING:
        return _built(program)


@cache
def _built(program: str) -> bytes:
    sources = _brought(program) if program else {}
    sources |= {
        f"blocks/{path.relative_to(_BLOCKS).as_posix()}": path.read_text("utf-8")
        for path in _files()
    }
    sources["__main__.py"] = _MAIN
    files = {name: text.encode() for name, text in sources.items()}
    files |= {f"{name}c": _compiled(name, source) for name, source in files.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name], zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _brought(program: str) -> dict[str, str]:
    spec = importlib.util.find_spec(program)
    assert spec is not None
    assert spec.origin is not None
    place = PurePosixPath(program.replace(".", "/"))
    found = {f"{folder}/__init__.py": "" for folder in place.parents if folder.name}
    return found | {f"{place}.py": Path(spec.origin).read_text("utf-8")}


def _files() -> Iterator[Path]:
    for name in ("__init__.py", "errors.py", "ownership.py", "readings.py"):
        yield _BLOCKS / name
    for folder in ("agent", "artifact"):
        for path in sorted((_BLOCKS / folder).rglob("*.py")):
            if path not in _NOT_CARRIED:
                yield path


def imports() -> tuple[str, ...]:
    """What the agent imports of Python's standard library: a statement for each module or name.

    Without all of it a job cannot even begin. Read once, however many hosts are asked for it.
    """
    with _BUILDING:
        return _imports()


@cache
def _imports() -> tuple[str, ...]:
    found = {"import runpy"}  # what runs the zip
    for path in _files():
        # By the code, for the `ast` of Python 3.11 breaks where several threads use it.
        code, module = compile(path.read_text("utf-8"), path.name, "exec", dont_inherit=True), ""
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                module = str(step.argval)
                found.add(f"import {module}")
            elif step.opname == "IMPORT_FROM":
                found.add(f"from {module} import {step.argval}")
    return tuple(sorted(item for item in found if _is_standard(item.split()[1])))


def _is_standard(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names


def _compiled(name: str, source: bytes) -> bytes:
    """A .pyc: a host with the same version of Python starts a third faster, others ignore it."""
    code = compile(source, name, "exec", dont_inherit=True)
    unchecked = (1).to_bytes(4, "little")
    head = importlib.util.MAGIC_NUMBER + unchecked + importlib.util.source_hash(source)
    return head + marshal.dumps(code, 2)  # from version 3 on, equal code may give unequal bytes


@cache
def digest() -> str:
    """The first 12 hexadecimal digits of the SHA-256 of `build()`: part of the file's name."""
    return hashlib.sha256(build()).hexdigest()[:12]
