"""The structure of the code: no circle of files, unique class names, and what a site loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("server", "clients", "common", "simulations")
SITE_MODULES = Path(__file__).with_name("site_modules.txt")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    """Every import of the tree, also those within functions; those for types only are left out."""
    return grimp.build_graph("shoal", exclude_type_checking_imports=True)


def test_no_circle_of_imports(graph: grimp.ImportGraph) -> None:
    edges = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail("these import each other: " + " ← ".join(error.args[1]))


def test_public_class_names_are_unique() -> None:
    places = defaultdict(list)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_site_loads_these_modules_and_no_others(graph: grimp.ImportGraph) -> None:
    # Whoever audits what runs beside the rows reads this list: a line more is a decision.
    loaded = graph.find_upstream_modules("shoal.clients.pilot.command") | {"shoal.clients.pilot.command"}
    expected = SITE_MODULES.read_text(encoding="utf-8").split()
    assert sorted(loaded) == expected, f"if that is meant, write the new list into {SITE_MODULES.name}"
    assert not [name for name in loaded if name.startswith(("shoal.server", "shoal.simulations"))]


def test_the_site_command_starts_without_the_lab() -> None:
    program = (
        "import sys\nfrom shoal.cli import main\n"
        "try:\n    main(['client', '--help'])\nexcept SystemExit: pass\n"
        "import shoal.clients.pilot.run\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "shoal.clients.pilot.run" in loaded
    assert not {"ray", "jinja2", "shoal.server", "shoal.simulations"} & loaded


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_over_500_lines_and_no_function_over_60() -> None:
    long = []
    for folder in (*PACKAGES, "shoal", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            where = path.relative_to(ROOT)
            if lines_of(path) > 500:
                long.append(f"{where}: {lines_of(path)} lines")
            if folder in ("tests", "benchmarks"):
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
                    # A docstring is not what makes a function hard to follow, nor are a command's options.
                    first = node.body[1] if len(node.body) > 1 and ast.get_docstring(node) else node.body[0]
                    length = (node.end_lineno or 0) - first.lineno + 1
                    if length > 60:
                        long.append(f"{where}: {node.name} has {length} lines")
    assert long == []
