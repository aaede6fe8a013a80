import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sk_resnet

PACKAGE = Path(sk_resnet.__file__).parent

# Each module may import those before it.
ORDER = [
    "_version",
    "_spec",
    "_layers",
    "_network",
    "_compact",
    "_penalty",
    "_optim",
    "_input",
    "_augment",
    "_batches",
    "_split",
    "_callbacks",
    "_checks",
    "_device",
    "_engine",
    "_capture",
    "_recipe",
    "_training",
    "_persist",
    "_base",
    "_path",
    "_files",
    "_classifier",
    "_embedder",
    "_probe",
    "_summary",
    "_displays",
    "_diagnosis",
    "__init__",
    "inspection",
    "_space",
    "search",
    "worker",
]
OUTSIDE = {
    "skorch": {"_training", "_callbacks", "_probe", "search"},
    "matplotlib": {"_displays"},
    "optuna": {"_space", "search", "worker"},
    "torch": set(ORDER)
    - {"_version", "_spec", "_input", "_split", "_files", "_path", "_space", "search"},
}


def imports(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_its_place():
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way(module):
    allowed = ORDER[: ORDER.index(module)]
    for name in imports(module):
        top, _, inner = name.partition(".")
        if top == "sk_resnet":
            assert inner in allowed
        assert module in OUTSIDE.get(top, {module})


@pytest.mark.parametrize("module", sorted(set(ORDER) - {"_base", "_checks"}))
def test_private_names_of_scikit_learn_stay_in_two_modules(module):
    tree = ast.parse((PACKAGE / f"{module}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("sklearn"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not any(name.startswith("_") for name in names)


def test_optional_packages_are_not_imported():
    code = (
        "import sys, sk_resnet; "
        "assert not {'matplotlib', 'optuna', 'skops'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
