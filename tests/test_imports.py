import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sk_resnet

PACKAGE = Path(sk_resnet.__file__).parent

# Each module may import those before it.
ORDER = [
    "_version",
    "_compat_sklearn",
    "_compat_skorch",
    "_compat_torch",
    "_spec",
    "_layers",
    "_network",
    "_surgery",
    "_penalty",
    "_optim",
    "_input",
    "_augment",
    "_batches",
    "_samples",
    "_target",
    "_data",
    "_state",
    "_archive",
    "_calibration",
    "_callbacks",
    "_machine",
    "_processes",
    "_record",
    "_plan",
    "_run",
    "_net",
    "_snapshot",
    "_checkpoint",
    "_training",
    "_group",
    "_members",
    "_fused",
    "_ensemble",
    "_model",
    "_base",
    "_estimators",
    "_classifier",
    "_path",
    "_embedder",
    "_files",
    "_onnx_converters",
    "_onnx",
    "__init__",
    "inspection._probe",
    "inspection._summary",
    "inspection._displays",
    "inspection._curves",
    "inspection._diagnosis",
    "inspection._attribution",
    "inspection._attribution_display",
    "inspection",
    "search._distributions",
    "search._space",
    "search._pruning",
    "search._objective",
    "search._sqlite",
    "search._studies",
    "search",
    "worker",
]
OUTSIDE = {
    "captum": {"inspection._attribution"},
    "matplotlib": {
        "inspection._attribution_display",
        "inspection._curves",
        "inspection._displays",
    },
    "onnx": {"_onnx", "_onnx_converters"},
    "onnxscript": set(),
    "optuna": {name for name in ORDER if name.startswith("search")} | {"worker"},
    "skl2onnx": {"_onnx", "_onnx_converters"},
    "skops": {"_archive"},
}
COMPAT = {
    "sklearn": "_compat_sklearn",
    "skorch": "_compat_skorch",
    "torch": "_compat_torch",
}


def path_of(module):
    path = PACKAGE / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def tree_of(module):
    return ast.parse(path_of(module).read_text())


def imports(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_every_module_has_its_place():
    found = {path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py")}
    assert found == {path_of(module).relative_to(PACKAGE) for module in ORDER}


def test_newcomers_are_told_of_every_module():
    table = (PACKAGE.parent / "CONTRIBUTING.rst").read_text()
    rooms = {module.partition(".")[0] for module in ORDER} - {"_version", "__init__"}
    for room in rooms:
        name = f"{room}/" if (PACKAGE / room).is_dir() else f"{room}.py"
        if not room.startswith("_compat_"):
            assert f"``{name}``" in table


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way(module):
    allowed = ORDER[: ORDER.index(module)]
    for name in imports(module):
        top, _, inner = name.partition(".")
        if top == "sk_resnet":
            assert (inner or "__init__") in allowed
        assert module in OUTSIDE.get(top, {module})


@pytest.mark.parametrize("module", sorted(set(ORDER) - {"_target", "_estimators"}))
def test_kinds_of_y_are_known_to_their_estimators_only(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and node.module == "sk_resnet._target":
            names = {alias.name for alias in node.names}
            assert names <= {"Target", "target_from_dict"}


def private(name):
    return name.startswith("_") and not name.startswith("__")


def our_private_names():
    """Names that this package defines, which its modules may read from each other."""
    found = set()
    for module in ORDER:
        for node in ast.walk(tree_of(module)):
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found.add(node.name)
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                is_own = isinstance(node.value, ast.Name) and node.value.id == "self"
                found |= {node.attr} if is_own else set()
    return found


@pytest.mark.parametrize("module", sorted(set(ORDER) - set(COMPAT.values())))
def test_private_names_of_others_stand_in_one_file_for_each_library(module):
    ours = our_private_names() | OF_THE_STANDARD_LIBRARY
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and not node.module.startswith("sk_resnet"):
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            assert not any(map(private, names)), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and private(node.attr):
            assert node.attr in ours, ast.unparse(node)


# scikit-learn documents these for those who derive classes from its own.
TO_OVERRIDE = re.compile("_doc_link_.*|_parameter_constraints|_validate_params")


@pytest.mark.parametrize("module", sorted(set(ORDER) - set(COMPAT.values())))
def test_private_names_of_others_are_overridden_in_one_file_for_each_library(module):
    name = "sk_resnet" if module == "__init__" else f"sk_resnet.{module}"
    for kind in vars(importlib.import_module(name)).values():
        if not isinstance(kind, type) or kind.__module__ != name:
            continue
        foreign = {
            attribute
            for base in kind.__mro__
            if not base.__module__.startswith(("sk_resnet", "typing", "builtins"))
            for attribute in vars(base)
        }
        for attribute, value in vars(kind).items():
            if private(attribute) and inspect.isfunction(value):
                is_allowed = TO_OVERRIDE.fullmatch(attribute) or attribute not in foreign
                assert is_allowed, f"{kind.__name__}.{attribute}"


# Parameters whose types have names, in the modules around the core.
OF_NAMED_TYPES = {
    "ax",
    "axes",
    "axis",
    "estimator",
    "net",
    "path",
    "random_state",
    "shallower",
    "space",
    "study",
    "trial",
}
AROUND = [m for m in ORDER if m.startswith(("inspection", "search"))]
AROUND += ["_callbacks", "_embedder", "_path", "worker"]


@pytest.mark.parametrize("module", AROUND)
def test_annotations_name_the_types_that_have_names(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.arg) and node.arg in OF_NAMED_TYPES:
            assert ast.unparse(node.annotation) not in ("Any", "dict[str, Any]"), node.arg


@pytest.mark.parametrize("module", [m for m in ORDER if m.startswith("inspection")])
def test_inspection_reads_no_private_attributes_of_estimators(module):
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Attribute) and private(node.attr):
            assert ast.unparse(node.value) in ("self", "cls"), ast.unparse(node)


# The number of a worker process, which multiprocessing keeps to itself; and what threads
# handle, of which the documentation of sys tells.
OF_THE_STANDARD_LIBRARY = {"_identity", "_current_exceptions"}


@pytest.mark.parametrize("library", COMPAT)
def test_a_private_name_that_is_gone_is_a_loud_error(library):
    holder, name = GONE[library]
    # The library itself has imported what it needs of its own.
    code = (
        "import sklearn.pipeline, sklearn.model_selection, sklearn.utils, skorch, torch\n"
        "import sklearn.callback, torch.utils._python_dispatch\n"
        f"delattr({holder}, {name!r})\n"
        "import sk_resnet"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert (
        f"ImportError: sk_resnet cannot use this version of {FULL[library]}" in done.stderr
    )


GONE = {
    "sklearn": ("sklearn.utils.validation", "_check_sample_weight"),
    "skorch": ("skorch.net.NeuralNet", "_initialize_optimizer"),
    "torch": ("torch.utils._python_dispatch", "TorchDispatchMode"),
}
FULL = {"sklearn": "scikit-learn", "skorch": "skorch", "torch": "torch"}


def test_optional_packages_are_not_imported():
    code = (
        "import sys, sk_resnet; "
        "optional = {'captum', 'matplotlib', 'onnx', 'onnxscript', 'optuna', 'skl2onnx'}; "
        "assert not (optional | {'skops'}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)
