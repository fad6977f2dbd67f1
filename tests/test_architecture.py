"""The house keeps its shape: imports go one way, the library is silent, every package is shipped."""

from __future__ import annotations

import ast
import configparser
import importlib
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "adjcompress"
# Each package may import those before it, and its own.
ORDER = (
    ("errors", "files", "machine", "running", "seeds", "tensors", "version"),
    ("cost",),
    ("models", "data"),
    ("widths",),
    ("adjoined", "substitutes", "supernets"),
    ("packages",),
    ("methods",),
    ("training",),
    ("deploy",),
    ("bench",),
    ("report",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
FILES = sorted(LIBRARY.rglob("*.py"))
ONNX = ("onnx", "onnxruntime", "onnxscript", "onnxsim")


def imported(path: Path) -> list[tuple[str, ast.stmt]]:
    """Modules that a file imports, at the top or inside functions."""
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name} imports relatively"
            assert node.module is not None
            of_package = node.module == "adjcompress"  # its parts are modules, too
            found += [(f"{node.module}.{alias.name}" if of_package else node.module, node) for alias in node.names]
    return found


@pytest.mark.parametrize(
    "path", [path for path in FILES if path != LIBRARY / "__init__.py"], ids=lambda path: str(path.relative_to(LIBRARY))
)
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(LIBRARY).with_suffix("").parts[0]
    for module, _ in imported(path):
        parts = module.split(".")
        if parts[0] == "adjcompress":
            below = len(parts) > 1 and (parts[1] == own or LEVEL[parts[1]] < max(LEVEL[own], 1))
            assert below, f"{path.name} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_the_library_never_prints_and_never_reads_the_command_line(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            assert getattr(node.func, "id", "") != "print"
    modules = {module.split(".")[0] for module, _ in imported(path)}
    assert not modules & {"argparse", "click", "rich"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_onnx_is_imported_under_deploy_and_bench_only(path: Path) -> None:
    if path.relative_to(LIBRARY).parts[0] not in ("deploy", "bench"):
        assert not {module.split(".")[0] for module, _ in imported(path)} & set(ONNX)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_torch_pruning_is_used_in_one_file(path: Path) -> None:
    if path.relative_to(LIBRARY).as_posix() != "widths/channels.py":
        assert "torch_pruning" not in {module.split(".")[0] for module, _ in imported(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_every_file_opens_with_a_sentence_and_every_public_name_has_a_docstring(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            short = node.end_lineno - node.lineno < 5  # type: ignore[operator]
            assert short or ast.get_docstring(node), f"{path.name}: {node.name}"


def test_commands_import_the_library_inside_their_bodies() -> None:
    for path in (ROOT / "cli").glob("*.py"):
        if path.name in ("progress.py", "train_options.py"):  # themselves imported inside a body
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.split(".")[0] not in ("adjcompress", "torch", "rich"), path.name


def test_every_package_is_listed_in_setup_cfg() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    present = {"adjcompress", *(f"adjcompress.{path.parent.name}" for path in LIBRARY.glob("*/__init__.py"))}
    assert listed == present | {"adjcompress_cli"}


def test_no_module_is_hidden_by_a_function_of_its_name() -> None:
    """`import adjcompress.package.module as m` would give the function."""
    for path in FILES:
        *package, name = path.relative_to(ROOT).with_suffix("").parts
        if name != "__init__":
            module = importlib.import_module(".".join((*package, name)))
            assert getattr(sys.modules[".".join(package)], name) is module, path
