"""Rules of the house that no compiler keeps: names, directions of imports, commands, safe loading, clean files."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from fcn.__main__ import COMMANDS
from fcn.record import ROOT

PACKAGES = ("fcn", "reference", "export", "runtime", "benchmarks")
# Folders whose files are run as scripts: Python then puts the folder itself first on its path.
SCRIPT_FOLDERS = ("reference", "export", "runtime", "benchmarks")
GPU_LIBRARIES = ("tensorrt", "tensorrt_rtx", "cuda", "pycuda", "openvino")
# PyPI's `build` makes packages, as `python -m build`: nothing that our scripts load imports it, so runtime/build.py,
# named for what it does, hides nothing from them.
NEVER_IMPORTED = {"build"}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def for_types_only(node: ast.If) -> bool:
    """Whether a block is for type checkers alone."""
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def called(node: ast.Call) -> str:
    """The dotted name that a call calls, or nothing."""
    return ast.unparse(node.func) if isinstance(node.func, ast.Name | ast.Attribute) else ""


def imports(path: Path) -> Iterator[str]:
    """Everything that a file imports anywhere in it, as dotted names: `from a import b` is a.b."""
    package = list(path.relative_to(ROOT).parts[:-1])
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = [*base, *([node.module] if node.module else [])]
            yield from (".".join([*parts, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and called(node).endswith(("import_module", "__import__")):
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield first.value


# --- names --------------------------------------------------------------------------------------------------


def test_no_file_in_a_script_folder_bears_the_name_of_a_module() -> None:
    """`python runtime/build.py` puts runtime/ first on the path: a runtime/onnx.py would hide the library."""
    elsewhere = [entry for entry in sys.path if entry and Path(entry).resolve() != ROOT]
    known = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) | set(GPU_LIBRARIES)
    for folder in SCRIPT_FOLDERS:
        for path in (ROOT / folder).iterdir():
            if path.suffix not in ("", ".py") or path.stem.startswith(("_", ".")) or path.stem in NEVER_IMPORTED:
                continue
            assert path.stem not in known, f"{relative(path)} hides a library"
            assert PathFinder.find_spec(path.stem, elsewhere) is None, f"{relative(path)} hides a library"


# --- directions of imports ----------------------------------------------------------------------------------

# Package -> what it may never import; and what of that it may all the same.
FORBIDDEN = {
    "fcn": ("reference", "export", "runtime", "benchmarks", "torch", "onnx", "onnxruntime", *GPU_LIBRARIES),
    "reference": ("export", "runtime", "benchmarks", "onnx", "onnxruntime", *GPU_LIBRARIES),
    "export": ("runtime", "benchmarks"),
    "runtime": ("torch", "reference", "export", "benchmarks"),
    "benchmarks": (),
}
ALLOWED = {"export": ("runtime.metadata",)}


def within(module: str, parents: tuple[str, ...]) -> bool:
    return any(module == parent or module.startswith(f"{parent}.") for parent in parents)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_run_one_way(package: str) -> None:
    for path in sources(package):
        for module in imports(path):
            if within(module, FORBIDDEN[package]) and not within(module, ALLOWED.get(package, ())):
                pytest.fail(f"{relative(path)} imports {module}")


def test_the_walk_sees_every_way_to_import() -> None:
    """That the rule above is no empty one."""
    found = set(imports(ROOT / "reference" / "net.py"))
    assert {"torch", "torch.nn", "reference.layers.Layer", "dataclasses.dataclass"} <= found


def test_nothing_but_tests_imports_tests() -> None:
    assert not [relative(p) for p in sources(*PACKAGES) if any(within(m, ("tests",)) for m in imports(p))]


def test_gpu_libraries_are_imported_where_they_are_used() -> None:
    """At the head of a file they would keep it from being imported on a machine without them (but for annotations)."""
    for path in sources(*PACKAGES, "tests"):
        inner = {id(child) for node in ast.walk(tree(path))
                 if isinstance(node, ast.FunctionDef) or (isinstance(node, ast.If) and for_types_only(node))
                 for child in ast.walk(node)}  # fmt: skip
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in inner:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not any(within(name, GPU_LIBRARIES) for name in names), relative(path)


@pytest.mark.parametrize("package", ["fcn", "runtime"])
def test_the_runtime_never_loads_torch(package: str, tmp_path: Path) -> None:
    """Every module of it, imported in a fresh process: nothing that it pulls in may pull in torch either."""
    program = (
        f"import sys, pkgutil, importlib, {package}\n"
        f"for m in pkgutil.walk_packages({package}.__path__, '{package}.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
        "print([m for m in ('torch', 'reference', 'export') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


# --- commands -----------------------------------------------------------------------------------------------


# Read as text, so that a file that does not parse fails a test and not the collection of all.
MAIN = re.compile(r"""^if __name__ == ["']__main__["']:""", re.MULTILINE)
SCRIPTS = [path for path in sources(*PACKAGES) if MAIN.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_every_file_parses(package: str) -> None:
    """With this Python; CI runs the oldest that is supported."""
    for path in sources(package):
        tree(path)


@pytest.mark.parametrize("path", SCRIPTS, ids=relative)
def test_every_command_helps_from_any_directory(path: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(path), "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout
    assert path.name == "__main__.py" or "example:" in done.stdout
    assert not list(tmp_path.iterdir()), "asking for help left files behind"


def test_the_one_command_line_leads_to_scripts() -> None:
    """Each command that is there can be run as a file too, and has the `main` that `fcn NAME` calls."""
    for name, (module, purpose) in COMMANDS.items():
        path = ROOT / f"{module.replace('.', '/')}.py"
        if path.exists():
            assert path in SCRIPTS, f"fcn {name}: {relative(path)} cannot be run as a file"
            mains = [node for node in tree(path).body if isinstance(node, ast.FunctionDef) and node.name == "main"]
            assert mains and purpose, name


# --- safety -------------------------------------------------------------------------------------------------


def test_nothing_is_unpickled() -> None:
    """A pickle runs code. Weights come as safetensors, caffemodels, or torch.load(weights_only=True)."""
    for path in sources(*PACKAGES, "tests"):
        for module in imports(path):
            assert not within(module, ("pickle", "cPickle", "dill", "joblib", "shelve", "marshal")), relative(path)
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            settings = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            assert not settings.get("allow_pickle"), f"{relative(path)}:{node.lineno}"
            if called(node) == "torch.load":
                assert settings.get("weights_only") is True, f"{relative(path)}:{node.lineno}"
            assert called(node) not in ("eval", "exec", "os.system"), f"{relative(path)}:{node.lineno}"


@cache
def files() -> list[Path]:
    """What is, or is about to be, in the repository; without git, what lies in the source folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return sources(*PACKAGES, "tests")
    found = [ROOT / name for name in done.stdout.decode().split("\0") if name]
    return [path for path in found if path.is_file()]


def test_no_path_of_somebodys_machine() -> None:
    """Absolute paths of homes and workplaces, in text and in binary records alike."""
    pattern = re.compile(rb"(?<![\w.:/-])(?:/(?:home|Users|root|work|mnt)/|[A-Z]:\\Users\\)[\w.-]+")
    assert pattern.search(b"see /" + b"home/somebody/x") and not pattern.search(b"https://a.b/" + b"home/x")
    for path in files():
        match = pattern.search(path.read_bytes())
        assert match is None, f"{relative(path)} names {match and match[0]!r}"
