"""The pages name existing files and headings, and list exactly the AWS rights that the code uses."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from persistence.dynamodb import schema, table

_ROOT = Path(__file__).parents[2]
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md")])
# A path that starts with a folder of this repository, in code quotes or as the target of a link.
_FOLDERS = "datahog|handlers|workers|providers|outbound|persistence|specs|simulator|tests|tools|bench|docs"
_PATH = re.compile(rf"(?:`|\]\()((?:{_FOLDERS})/[\w./-]*)(?:`|\))")
_SECURITY = (_ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = _PATH.findall(page.read_text(encoding="utf-8"))

    assert [path for path in named if not (_ROOT / path).exists() and not (page.parent / path).exists()] == []


def test_the_readme_has_at_most_150_lines() -> None:
    assert len((_ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_site_has_each_page_under_docs() -> None:
    listed = re.findall(r"^  - [\w ]+: (\S+\.md)$", (_ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(listed) == sorted(page.name for page in _ROOT.glob("docs/*.md"))


def test_every_link_to_a_heading_finds_it() -> None:
    links = [
        (page, target, heading)
        for page in _PAGES
        for target, heading in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8"))
    ]

    assert links
    assert [link for link in links if link[2] not in _headings(link[0].parent / link[1] if link[1] else link[0])] == []


def test_every_control_names_its_test() -> None:
    table = _SECURITY.split("## Threats and controls")[1].split("## Rights on AWS")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:]

    assert len(rows) > 10
    assert [cells[1].strip() for cells in rows if not re.search(r"`[\w./-]+`", cells[-2])] == []


def test_runtime_rights_are_exactly_the_calls_made() -> None:
    [policy] = re.findall(r"```json\n(.*?)```", _SECURITY, re.DOTALL)
    records, keys = json.loads(policy)["Statement"]

    assert sorted(records["Action"]) == sorted(f"dynamodb:{name}" for name in _calls(_tree(table.__file__)))
    names = schema.table_names("datahog")
    holding_records = {name: indexes for name, indexes in names.items() if name != schema.keys_table("datahog")}
    resources = [
        resource
        for name, indexes in holding_records.items()
        for resource in (name, *(f"{name}/index/{index}" for index in indexes))
    ]
    arn = "arn:aws:dynamodb:REGION:ACCOUNT:table/"
    assert sorted(records["Resource"]) == sorted(arn + resource for resource in resources)
    # A running process reads API keys one at a time, and does nothing else with them.
    assert (keys["Action"], keys["Resource"]) == ("dynamodb:GetItem", arn + schema.keys_table("datahog"))
    assert _keys_methods_used() == {"get"}


def test_table_creation_rights_are_exactly_the_calls_made() -> None:
    listed = set(re.findall(r"`(?:dynamodb:)?(\w+)`", _SECURITY.split("running `tables` needs")[1]))

    methods = {
        node.func.attr
        for node in ast.walk(_tree(schema.__file__))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_client(node.func.value)
    }

    assert listed == {name.title().replace("_", "") for name in methods}


def _headings(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title in titles}


def _tree(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


def _calls(tree: ast.Module) -> set[str]:
    """The DynamoDB operations that `Table` calls through the transport; only the creation of tables bypasses it."""
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_call"
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def _is_client(node: Any) -> bool:
    return isinstance(node, ast.Name) and node.id == "client"


def _keys_methods_used() -> set[str]:
    """The methods of the key repository that the authentication of callers uses."""
    return {
        node.attr
        for node in ast.walk(_tree(str(_ROOT / "handlers" / "access" / "api_key_cache.py")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "_keys"
    }
