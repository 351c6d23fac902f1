"""The layers and their packages: imports point down only, none is crowded, and importing does nothing but import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
# From the top down.
_LAYERS = ("datahog", "handlers", "workers", "providers", "outbound", "persistence", "specs")
# What the modules of a package may import of their own layer, besides the package itself.
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
# New tables are told of the shards of their indexes as soon as they are created.
_CLIMBS = {"persistence.dynamodb.schema": {"persistence.index.shards"}}
# Modules and packages in one package.
_MOST_SIBLINGS = 14
# Lines of one module, and those that have more until they are split.
_MOST_LINES = 250
_LONG = {"datahog/bootstrap/wiring.py"}
_MODULES = sorted(
    path
    for layer in (*_LAYERS, "simulator")
    for path in (_ROOT / layer).rglob("*.py")
    if "node_modules" not in path.parts
)
_each_module = pytest.mark.parametrize("module", _MODULES, ids=lambda path: str(path.relative_to(_ROOT)))

_IMPORT_ALL = """
import importlib, sys, threading
def tell(what):
    sys.stderr.write(f"{what} while importing {name}\\n")
def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.send", "socket.getaddrinfo", "subprocess.")):
        tell(event)
sys.addaudithook(watch)
# Not every Python audits this.
threading.Thread.start = lambda thread: tell("thread")
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


@_each_module
def test_no_module_imports_from_a_higher_layer(module: Path) -> None:
    layer = module.relative_to(_ROOT).parts[0]
    below = set() if layer == "simulator" else set(_LAYERS[_LAYERS.index(layer) :])

    tops = {name.split(".")[0] for name in _imports(module)}
    ours = tops & {*_LAYERS, "simulator", "tests", "bench"}

    # Only the composition root runs the stand-in for the providers.
    assert ours <= below | {layer} | ({"simulator"} if layer == "datahog" else set())


@_each_module
def test_no_module_imports_from_a_higher_package(module: Path) -> None:
    name = _name(module)
    package = ".".join(name.split(".")[:2])
    layer = name.split(".")[0]
    allowed = {package, *_PACKAGES.get(package, set()), *_CLIMBS.get(name, set())}

    own = {imported for imported in _imports(module) if imported.split(".")[0] == layer}

    assert package not in _PACKAGES or [one for one in own if not _is_in(one, allowed)] == []


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


@_each_module
def test_every_module_docstring_opens_with_one_sentence(module: Path) -> None:
    first, _, rest = (ast.get_docstring(ast.parse(module.read_text())) or "").partition("\n")

    assert first.endswith((".", "!"))
    assert rest == "" or rest.startswith("\n")


@_each_module
def test_only_the_top_layer_reads_the_environment(module: Path) -> None:
    tree = ast.parse(module.read_text())
    is_top = module.is_relative_to(_ROOT / "datahog")

    read = list(_reads_of_environment(_run_at_import(tree) if is_top else ast.walk(tree)))

    assert read == []


def test_importing_opens_no_connection_thread_or_process() -> None:
    names = [_name(path) for path in _MODULES if path.stem != "__main__"]

    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL, *names], cwd=_ROOT, capture_output=True, text=True)

    assert [line for line in done.stderr.splitlines() if "while importing" in line] == []
    assert done.returncode == 0, done.stderr


def _name(module: Path) -> str:
    return ".".join(module.relative_to(_ROOT).with_suffix("").parts).removesuffix(".__init__")


def _is_in(name: str, packages: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def _imports(module: Path) -> set[str]:
    """The modules, and names in them, that a module imports: in functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = module.relative_to(_ROOT).parts[: -node.level] if node.level else ()
            found |= {".".join((*package, *filter(None, (node.module, alias.name)))) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            found.add(ast.unparse(node.args[0]).strip("'\""))
    return found


def _run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that importing runs: all but what stands in the bodies of functions."""
    yield node
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and name == "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _run_at_import(child)


def _reads_of_environment(nodes: Iterator[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            yield ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names if alias.name in ("environ", "environb", "getenv"))
