"""URL paths of the APIs stand in their documents only; the code reads them from there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import specs

_ROOT = Path(__file__).parents[2]
_PARTS = ("datahog", "handlers", "workers", "providers", "outbound", "persistence", "simulator", "specs", "bench")
# The peers and the surroundings of the benches have their own paths.
_EXCLUDED = {_ROOT / "bench" / name for name in ("systems.py", "world.py")} | {
    *(_ROOT / "bench" / "peers").rglob("*.py")
}
_MODULES = [
    *sorted(path for part in _PARTS for path in (_ROOT / part).rglob("*.py") if "node_modules" not in path.parts),
    _ROOT / "tests" / "support" / "system.py",
]


def _segments() -> set[str]:
    """The fixed segments of the documents' paths, such as `requests` and `cancel`."""
    paths = [path for name in (specs.AGGREGATOR, specs.CLIENT) for path in specs.read(name)["paths"]]
    return {segment for path in paths for segment in path.split("/") if segment and "{" not in segment}


_PATH = re.compile(rf"{specs.base_path(specs.CLIENT)}|/({'|'.join(sorted(_segments() - {'providers'}))})\b")


def test_no_module_contains_a_path_of_an_api() -> None:
    offenders = [
        f"{module.relative_to(_ROOT)}: {text}"
        for module in _MODULES
        if module not in _EXCLUDED
        for text in _literals(module)
        if _PATH.search(text)
    ]

    assert not offenders, "\n".join(offenders)


def test_the_pattern_finds_paths() -> None:
    assert _PATH.search(f"{specs.base_path(specs.AGGREGATOR)}/requests/x")
    assert _PATH.search("/callbacks/x")


def _literals(module: Path) -> Iterator[str]:
    """The string literals of a module, without docstrings."""
    tree = ast.parse(module.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
