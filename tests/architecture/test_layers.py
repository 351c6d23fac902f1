"""The layers and their packages: imports point down only, packages and modules are small, imports have no effects."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
# From the top layer down.
_LAYERS = ("datahog", "handlers", "workers", "providers", "outbound", "persistence", "specs")
# The modules of its own layer that a package may import, besides itself.
_PACKAGES = {
    "datahog.bootstrap": {"datahog.settings"},
    "datahog.commands": {"datahog.settings"},
    "datahog.local": {"datahog.settings"},
    "handlers.middleware": {"handlers.problems"},
    "handlers.access": {"handlers.problems", "handlers.middleware"},
    "workers.rq_worker": {"workers.redis_breaker"},
    "workers.reconciler": {"workers.queue", "workers.heartbeats"},
    "persistence.dynamodb": {"persistence.errors"},
    "persistence.records": {"persistence.errors", "persistence.dynamodb"},
    "persistence.index": {"persistence.errors", "persistence.dynamodb", "persistence.records"},
    "persistence.results": {
        "persistence.errors",
        "persistence.dynamodb",
        "persistence.records",
        "persistence.index",
    },
}
# Exceptions: the creation of a table also writes the shards of its indexes.
_EXCEPTIONS = {"persistence.dynamodb.schema": {"persistence.index.shards"}}
# The largest number of modules and packages in one package.
_MOST_SIBLINGS = 14
# The largest number of lines of a module, and the modules that exceed it until they are split.
_MOST_LINES = 250
_LONG = {"datahog/bootstrap/wiring.py"}
_MODULES = sorted(
    path
    for layer in (*_LAYERS, "simulator")
    for path in (_ROOT / layer).rglob("*.py")
    if "node_modules" not in path.parts
)

_IMPORT_ALL = """
import importlib, sys, threading
def report(effect):
    sys.stderr.write(f"{effect} while importing {name}\\n")
def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.send", "socket.getaddrinfo", "subprocess.")):
        report(event)
sys.addaudithook(watch)
# Python 3.11 has no audit event for the start of a thread.
threading.Thread.start = lambda thread: report("thread")
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_no_module_imports_from_a_higher_layer() -> None:
    offenders = [f"{_name(module)}: {name}" for module in _MODULES for name in _imports_from_higher_layers(module)]

    assert not offenders, "\n".join(offenders)


def test_no_module_imports_from_a_higher_package() -> None:
    offenders = [f"{_name(module)}: {name}" for module in _MODULES for name in _imports_from_higher_packages(module)]

    assert not offenders, "\n".join(offenders)


def test_the_rules_name_each_package_of_a_layer() -> None:
    packages = {_name(path) for path in _MODULES if path.name == "__init__.py"}

    assert {name for name in packages if name.count(".") == 1} - {"specs.swagger_ui"} == set(_PACKAGES)


def test_no_package_is_crowded() -> None:
    siblings = {
        package: {
            entry.name
            for entry in package.iterdir()
            if (entry.suffix == ".py" and entry.stem != "__init__") or (entry / "__init__.py").exists()
        }
        for package in {path.parent for path in _MODULES}
    }

    assert {
        str(package.relative_to(_ROOT)) for package, names in siblings.items() if len(names) > _MOST_SIBLINGS
    } == set()


def test_no_module_has_too_many_lines() -> None:
    long = {str(path.relative_to(_ROOT)) for path in _MODULES if len(path.read_text().splitlines()) > _MOST_LINES}

    assert long == _LONG


def test_every_module_docstring_opens_with_one_sentence() -> None:
    offenders = [_name(module) for module in _MODULES if not _opens_with_one_sentence(module)]

    assert not offenders, "\n".join(offenders)


def test_only_the_top_layer_reads_the_environment() -> None:
    offenders = [f"{_name(module)}: {read}" for module in _MODULES for read in _forbidden_reads(module)]

    assert not offenders, "\n".join(offenders)


def test_importing_opens_no_connection_thread_or_process() -> None:
    names = [_name(path) for path in _MODULES if path.stem != "__main__"]

    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL, *names], cwd=_ROOT, capture_output=True, text=True)

    assert [line for line in done.stderr.splitlines() if "while importing" in line] == []
    assert done.returncode == 0, done.stderr


def _name(module: Path) -> str:
    return ".".join(module.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def _tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text())


def _imports_from_higher_layers(module: Path) -> set[str]:
    layer = module.relative_to(_ROOT).parts[0]
    below = set() if layer == "simulator" else set(_LAYERS[_LAYERS.index(layer) :])
    # Only the composition root runs the simulator.
    allowed = below | {layer} | ({"simulator"} if layer == "datahog" else set())
    imported = {name.split(".")[0] for name in _imports(module)}
    return (imported & {*_LAYERS, "simulator", "tests", "bench"}) - allowed


def _imports_from_higher_packages(module: Path) -> set[str]:
    name = _name(module)
    package = ".".join(name.split(".")[:2])
    if package not in _PACKAGES:
        return set()
    layer = name.split(".")[0]
    allowed = {package, *_PACKAGES[package], *_EXCEPTIONS.get(name, set())}
    return {one for one in _imports(module) if one.split(".")[0] == layer and not _is_in(one, allowed)}


def _opens_with_one_sentence(module: Path) -> bool:
    first, _, rest = (ast.get_docstring(_tree(module)) or "").partition("\n")
    return first.endswith((".", "!")) and (rest == "" or rest.startswith("\n"))


def _is_in(name: str, packages: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _imports(module: Path) -> set[str]:
    """The modules, and the names in them, that a module imports, also in functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.relative_to(_ROOT).parts[: -node.level] if node.level else ()
            found |= {".".join((*package, *filter(None, (node.module, alias.name)))) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            found.add(ast.unparse(node.args[0]).strip("'\""))
    return found


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that an import runs: all but the bodies of functions."""
    yield node
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and name == "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _run_at_import(child)


def _forbidden_reads(module: Path) -> Iterator[str]:
    """The reads of the environment in a lower layer, and those that an import of the top layer runs."""
    is_top = module.is_relative_to(_ROOT / "datahog")
    return _reads_of_environment(_run_at_import(_tree(module)) if is_top else ast.walk(_tree(module)))


def _reads_of_environment(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names if alias.name in ("environ", "environb", "getenv"))
