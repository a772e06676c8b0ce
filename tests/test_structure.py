"""What may import what: the ledger of uses is complete as nothing goes past what writes it."""

import ast
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUTWARD = {
    "asyncio",
    "asyncssh",
    "boto3",
    "botocore",
    "ftplib",
    "http",
    "httpx",
    "paramiko",
    "psycopg",
    "requests",
    "smtplib",
    "socket",
    "ssl",
    "subprocess",
}
"""What reaches hosts, stores or networks: for blocks alone, each of which notes what it uses."""


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            of = node.module or ""
            yield from (f"{of}.{name.name}" for name in node.names if "." not in of)
            yield of


def names(path: Path) -> Iterator[str]:
    """Every name and attribute that a file uses or imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_tasks_and_engines_reach_nothing_but_through_a_block() -> None:
    files = [*(ROOT / "tasks").rglob("*.py"), *(ROOT / "blocks" / "engines").rglob("*.py")]
    assert len(files) > 20
    past = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in files
        for module in imported(path)
        if module.split(".")[0] in OUTWARD or module.startswith("urllib.request")
    }
    assert past == set()


def test_imports_point_one_way() -> None:
    allowed = {
        "blocks": {"blocks"},
        "tasks": {"blocks", "tasks"},
        "flows": {"blocks", "tasks", "flows", "deployments"},
    }
    wrong = {
        f"{path.relative_to(ROOT)}: {module}"
        for folder, known in allowed.items()
        for path in (ROOT / folder).rglob("*.py")
        for module in imported(path)
        if (top := module.split(".")[0]) in {*allowed, "deployments"} and top not in known
    }
    assert wrong == set()


LAYERS = (
    {"collection"},
    {"plan"},
    {"engines"},
    {"fences", "repositories", "attribution", "certificates"},
    {"domain"},
    {"vaults", "remote"},
    {"hosts", "stores"},
    {"block"},
    {"evidence"},
    {"agent"},
    {"artifact"},
    {"ownership", "settings"},
    {"errors", "readings", "ids", "limits", "materials", "workers"},
)
"""The parts of `blocks`, top to bottom: each imports only what is below it, or is its own."""


def _part(module: str) -> str:
    return f"{module}..".split(".")[1]


def test_blocks_import_downwards() -> None:
    level = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    wrong = set()
    for path in (ROOT / "blocks").rglob("*.py"):
        of = path.relative_to(ROOT / "blocks").with_suffix("").parts[0]
        for module in imported(path):
            if module.startswith("blocks.") and _part(module) != of:
                assert {of, _part(module)} <= {*level, "__init__"}, f"{path}: {module}: no layer"
                if level[_part(module)] <= level[of]:
                    wrong.add(f"{path.relative_to(ROOT)}: {module}")
    assert wrong == set()


def test_no_imports_go_in_a_circle() -> None:
    """Whichever module is imported first, all it needs is there."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for folder in ("blocks", "tasks", "flows", "deployments")
        for path in (ROOT / folder).rglob("*.py")
    }
    needs = {
        module: {
            f"{node.module}.{name.name}" if f"{node.module}.{name.name}" in files else node.module
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
            for name in node.names
        }
        & files.keys()
        for module, path in files.items()
    }
    TopologicalSorter(needs).prepare()  # raises CycleError, with the circle


def test_no_engine_imports_another() -> None:
    engines = ROOT / "blocks" / "engines"
    contract = {path.stem for path in engines.glob("*.py")} | {"common"}
    wrong = {
        f"{path.relative_to(ROOT)}: {module}"
        for path in engines.glob("*/**/*.py")
        for module in imported(path)
        if module.startswith("blocks.engines.")
        and module.split(".")[2] not in (path.relative_to(engines).parts[0], *contract)
    }
    assert wrong == set()


def test_no_engine_says_in_which_stage_it_was_asked() -> None:
    """A finding of an engine has no stage: the caller knows it."""
    calls = {
        f"{path.relative_to(ROOT)}:{node.lineno}": node
        for path in (ROOT / "blocks" / "engines").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "finding"
    }
    assert len(calls) > 40
    assert [at for at, call in calls.items() if len(call.args) > 3] == []
    assert [at for at, call in calls.items() if "stage" in {k.arg for k in call.keywords}] == []


def test_what_runs_on_hosts_needs_little() -> None:
    """Python's standard library, cryptography and zstandard: nothing else is asked of a host."""
    known = {*sys.stdlib_module_names, "cryptography", "zstandard"}
    carried = {"artifact": ("artifact", "errors"), "agent": ("agent", "artifact", "errors")}
    wrong = {
        f"{path.relative_to(ROOT)}: {module}"
        for folder, parts in carried.items()
        for path in (
            *(ROOT / "blocks" / folder).rglob("*.py"),
            *((ROOT / "blocks" / "engines").glob("*/on_host.py") if folder == "agent" else ()),
        )
        for module in imported(path)
        if module != "blocks"
        and module.split(".")[0] not in known
        and not (
            module.startswith("blocks.") and _part(module) in (*parts, "ownership", "readings")
        )
    }
    assert wrong == set()


def test_the_agent_names_no_engine() -> None:
    """But where it hides secrets: a host has programs of any, whatever is rehearsed there."""
    engines = {path.parent.name for path in (ROOT / "blocks" / "engines").glob("*/__init__.py")}
    names = engines - {"command", "common"}
    assert {"postgres", "etcd", "galera"} <= names
    naming = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "blocks" / "agent").rglob("*.py")
        for name in (*names, "mariadb", "pg_")
        if name in path.read_text().lower() and path.name != "redaction.py"
    }
    assert naming == set()


def test_an_error_that_names_a_host_names_its_domain() -> None:
    """Else what fails in the source is told as a fault of the recovery."""
    wrong = {
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("blocks", "tasks")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call | ast.Dict)
        and (named := _named(node)).get("host", "").endswith(".host.name")
        and "domain" not in named
    }
    assert wrong == set()


def _named(node: ast.Call | ast.Dict) -> dict[str, str]:
    """The arguments of a call that makes an error, or of what will be one, by their names."""
    if isinstance(node, ast.Call):
        found = {item.arg: ast.unparse(item.value) for item in node.keywords if item.arg}
        return found if "operation" in found or "Error" in ast.unparse(node.func) else {}
    pairs = zip(node.keys, node.values, strict=True)
    found = {
        str(key.value): ast.unparse(value) for key, value in pairs if isinstance(key, ast.Constant)
    }
    return found if "operation" in found else {}


def test_no_pool_of_farside_s_own_process_joins_its_threads() -> None:
    """A ThreadPoolExecutor waits for a call that hangs: at a signal, a time limit, the exit.

    The agent may use it: its process ends with os._exit.
    """
    agent = ROOT / "blocks" / "agent"
    files = [path for folder in ("tasks", "blocks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    joining = {
        str(path.relative_to(ROOT))
        for path in files
        if not path.is_relative_to(agent) and "ThreadPoolExecutor" in names(path)
    }
    assert joining == set()
