"""Every name of TensorRT that runtime/ uses on any branch exists in each version that takes the branch.

TensorRT itself cannot be installed where this suite runs, so its public names were read off the real bindings of
10.16.1.11 ("10"), 11.4.0.106 ("11") and TensorRT-RTX 1.7.1.116 ("rtx") into trt_names.json. The code is written to be
checked: what comes from the library is annotated (`engine: tensorrt.ICudaEngine`), and this walk over the syntax tree
follows annotations and assignments. A value of the library whose class it cannot tell may be passed on, but an
attribute of such a value fails the test, and so does one that looks like the library's on anything else.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from fcn.record import ROOT
from runtime import build

FILES = sorted((ROOT / "runtime").glob("*.py"))
VERSIONS = {"10", "11", "rtx"}
# What stands behind `Library.rtx`: TensorRT has it not.
RTX_ONLY = {
    "ComputeCapability",
    "CudaGraphStrategy",
    "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE",
    "EngineValidity",
    "EngineValidity.INVALID",
    "IBuilderConfig.num_compute_capabilities",
    "IBuilderConfig.set_compute_capability",
    "IRuntimeConfig.cuda_graph_strategy",
    "Runtime.get_engine_validity",
}
# getattr(trt.<class>, ...): the names that may be asked for.
DYNAMIC = {
    "MemoryPoolType": set(build.POOLS.values()),
    "HardwareCompatibilityLevel": set(build.LEVELS.values()),
    "ComputeCapability": {"SM86", "SM89", "SM120"},
}
# Attributes of our own that have names of TensorRT's.
OURS = {"device_memory", "to_host"}


@dataclass(frozen=True)
class Type:
    """What an expression is, as far as the library goes."""

    kind: str
    """"module", "class", "object", or "unknown": the library's, but of a class that nobody wrote down."""
    name: str = ""


@dataclass
class Uses:
    """What the walk found."""

    names: set[str] = field(default_factory=set)
    """"Builder" or "Builder.create_network"."""
    dynamic: set[str] = field(default_factory=set)
    """Classes whose members are asked for by name."""
    problems: list[str] = field(default_factory=list)


@cache
def lists() -> dict[str, dict[str, set[str]]]:
    """Class ("module" for the module itself) -> name -> the versions that have it."""
    read = json.loads((Path(__file__).parent / "trt_names.json").read_text())
    assert set(read.pop("versions")) == VERSIONS
    return {
        owner: {name: set(where.split()) for where, names in groups.items() for name in names.split()}
        for owner, groups in read.items()
    }


def where(use: str) -> set[str]:
    """The versions that have a used name."""
    owner, _, name = use.rpartition(".")
    return lists().get(owner or "module", {}).get(name, set())


def declared(annotation: ast.expr | None) -> Type | None:
    """The type of `tensorrt.X`, as in an annotation; of `tensorrt.X | None` too."""
    match annotation:
        case ast.Attribute(ast.Name("tensorrt"), name):
            return Type("object", name)
        case ast.BinOp(left, ast.BitOr(), ast.Constant(None)):
            return declared(left)
    return None


class Walk(ast.NodeVisitor):
    """One file: types by variable, function by function, and by attribute for the whole file."""

    def __init__(self, path: Path, uses: Uses) -> None:
        self.path, self.uses = path, uses
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.attributes: dict[str, Type] = {}
        self.variables: list[dict[str, Type | None]] = [{}]
        for node in ast.walk(tree):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                name, type = node.target.attr, declared(node.annotation)
                assert not type or self.attributes.setdefault(name, type) == type, f"{path.name}: two {name}"
        self.own = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) if _stored(node)} | {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        self.visit(tree)

    def problem(self, node: ast.AST, text: str) -> None:
        self.uses.problems.append(f"{self.path.name}:{getattr(node, 'lineno', 0)}: {text}")

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.variables.append({argument.arg: declared(argument.annotation) for argument in arguments})
        for statement in node.body:
            self.visit(statement)
        self.variables.pop()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            type = self.type(base)
            if type and type.kind == "class" and type.name == "IProgressMonitor":  # abstract: all of it is asked for
                methods = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
                assert set(lists()[type.name]) <= methods
        for statement in node.body:
            self.visit(statement)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value:
            self.type(node.value)
        if isinstance(node.target, ast.Name):
            self.variables[-1][node.target.id] = declared(node.annotation)
        elif isinstance(node.target, ast.Attribute):
            self.type(node.target.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for part, value in zip(target.elts, node.value.elts, strict=True):
                    self.bind(part, self.type(value))
            else:
                self.bind(target, self.type(node.value))

    def visit_For(self, node: ast.For) -> None:
        self.bind(node.target, _part(self.type(node.iter)))
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.type(node)
        else:
            super().generic_visit(node)

    def bind(self, target: ast.expr, type: Type | None) -> None:
        if isinstance(target, ast.Name):
            self.variables[-1][target.id] = type
        elif isinstance(target, ast.Tuple):
            for part in target.elts:
                self.bind(part, _part(type))
        else:
            self.type(target)  # an attribute that is set must exist as well

    def type(self, node: ast.expr) -> Type | None:
        """What an expression is; on the way, everything in it is looked at."""
        match node:
            case ast.Name("trt"):
                return Type("module")
            case ast.Name(name):
                return next((scope[name] for scope in reversed(self.variables) if name in scope), None)
            case ast.Attribute(value, name):
                return self.attribute(node, self.type(value), name)
            case ast.Call(ast.Name("getattr"), [owner, _, *_]) if (type := self.type(owner)) is not None:
                self.uses.dynamic.add(type.name)
                return Type("unknown")
            case ast.Call(function):
                type = self.type(function)
                for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
                    self.type(argument)
                if type and type.kind == "class":
                    return Type("object", type.name)
                return Type("unknown") if type else None
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self.variables.append({})
                for loop in node.generators:
                    self.bind(loop.target, _part(self.type(loop.iter)))
                    for condition in loop.ifs:
                        self.type(condition)
                for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
                    self.type(part)
                self.variables.pop()
                return None
            case ast.Lambda():
                self.type(node.body)
                return None
        types = [self.type(child) for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]
        chosen = isinstance(node, ast.BoolOp | ast.IfExp | ast.NamedExpr | ast.Subscript)
        return next((type for type in types if type), None) if chosen else None

    def attribute(self, node: ast.Attribute, base: Type | None, name: str) -> Type | None:
        if name in ("trt", "_trt"):
            return Type("module")
        if base is None:
            if name in self.attributes:
                return self.attributes[name]
            if name in _distinct() - self.own - OURS:
                self.problem(node, f"{ast.unparse(node)} looks like TensorRT's: annotate what it is an attribute of")
            return None
        if base.kind == "unknown":
            self.problem(node, f"{ast.unparse(node)}: of which class? annotate it")
            return None
        if name.startswith("__"):
            return Type("unknown")
        self.uses.names.add(f"{base.name}.{name}".removeprefix("."))
        if base.kind == "module":
            return Type("class", name) if name in lists() else Type("unknown")
        return Type("object", base.name) if base.kind == "class" and "value" in lists()[base.name] else Type("unknown")


def _part(type: Type | None) -> Type | None:
    return Type("unknown") if type else None


def _stored(node: ast.Attribute) -> bool:
    """Whether an attribute is one of our own: self.x = ..., or declared in a class."""
    return isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"


@cache
def _distinct() -> set[str]:
    """Names of the library's methods and attributes that hardly anything else would have."""
    names = {name for owner, members in lists().items() if owner != "module" for name in members}
    return {name for name in names if "_" in name and name.islower()} | {"serialize"}


@cache
def uses() -> Uses:
    found = Uses()
    for path in FILES:
        Walk(path, found)
    return found


def walked(text: str, tmp_path: Path) -> Uses:
    (tmp_path / "x.py").write_text(text)
    found = Uses()
    Walk(tmp_path / "x.py", found)
    return found


def test_every_value_of_the_library_is_annotated() -> None:
    assert not uses().problems, "\n".join(uses().problems)


def test_the_walk_sees_what_is_used() -> None:
    """That the tests below are no empty ones: the calls that every engine needs are among what was found."""
    assert {
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "Builder.build_serialized_network",
        "OnnxParser.parse_from_file",
        "ParserError.node_name",
        "IBuilderConfig.progress_monitor",
        "IExecutionContext.execute_async_v3",
        "IExecutionContext.set_tensor_address",
        "ICudaEngine.get_tensor_profile_shape",
        "Runtime.deserialize_cuda_engine",
    } <= uses().names
    assert len(uses().names) > 60


def test_every_name_exists_in_every_version_that_uses_it() -> None:
    for use in sorted(uses().names):
        expected = {"rtx"} if use in RTX_ONLY else VERSIONS
        assert where(use) >= expected, f"{use}: only in {sorted(where(use))}"


def test_what_is_declared_as_one_librarys_is_used_and_is_in_no_other() -> None:
    for use in RTX_ONLY:
        assert use in uses().names and where(use) == {"rtx"}, use


def test_names_that_are_asked_for_at_run_time() -> None:
    assert uses().dynamic == set(DYNAMIC)
    for owner, names in DYNAMIC.items():
        for name in names:
            assert where(f"{owner}.{name}") >= ({"rtx"} if owner in RTX_ONLY else VERSIONS), f"{owner}.{name}"


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_the_installed_library_has_them_too(module: str) -> None:
    trt = pytest.importorskip(module)
    rtx = module == "tensorrt_rtx"
    for use in uses().names - (set() if rtx else RTX_ONLY):
        owner, _, name = use.rpartition(".")
        assert hasattr(getattr(trt, owner) if owner else trt, name), use


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("def f(trt):\n    network = trt.Builder(1).create_network()\n    network.num_layers", "network.num_layers"),
        ("def f(engine):\n    return engine.num_io_tensors", "looks like TensorRT's"),
        ("def f(e: tensorrt.ICudaEngine):\n    return e.create_execution_context().infer_shapes()", "of which class"),
        ("def f(e: tensorrt.ICudaEngine):\n    return [x.shape for x in e.get_tensor_profile_shape('', 0)]", "x.shape"),
    ],
)
def test_what_the_walk_cannot_follow_fails(text: str, problem: str, tmp_path: Path) -> None:
    found = walked(text, tmp_path)
    assert len(found.problems) == 1 and problem in found.problems[0]


@pytest.mark.parametrize(
    ("text", "use"),
    [
        ("def f(trt):\n    return trt.BuilderFlag.FP16", "BuilderFlag.FP16"),
        ("class A:\n    def f(self):\n        self.c: tensorrt.IBuilderConfig = 1\n        self.c.int8_calibrator = 2",
         "IBuilderConfig.int8_calibrator"),
        ("def f(trt):\n    b = trt.Builder(1)\n    return b.platform_has_tf32", "Builder.platform_has_tf32"),
        ("def f(self):\n    return self._trt.QuantizationFlag.CALIBRATE_BEFORE_FUSION",
         "QuantizationFlag.CALIBRATE_BEFORE_FUSION"),
    ],
)  # fmt: skip
def test_a_name_that_11_lost_is_found(text: str, use: str, tmp_path: Path) -> None:
    found = walked(text, tmp_path)
    assert use in found.names and where(use) == {"10"} and not found.problems
