"""runtime/device.py, as far as it goes without a GPU: what is refused, and that the bindings have what it calls.

tests/runtime/test_engine_gpu.py runs it where there is a card.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import subprocess
from collections.abc import Iterator

import pytest

from fcn.cli import BadInput
from fcn.record import ROOT
from runtime import device

# pycuda is source only and compiles against the CUDA toolkit: its names are read off src/wrapper/wrap_cudadrv.cpp
# and pycuda/__init__.py of 2026.1 (the same in 2024.1).
PYCUDA = {
    "cuda": {
        "Device",
        "Event",
        "MemoryError",
        "Stream",
        "get_driver_version",
        "init",
        "mem_alloc",
        "memcpy_dtoh_async",
        "memcpy_htod_async",
        "pagelocked_empty",
    },
    "_context": {"push", "pop", "detach"},
    "device": {"compute_capability", "name", "retain_primary_context"},
    "owner": {"free", "handle", "record", "synchronize", "time_till"},
    "pycuda": {"VERSION_TEXT", "driver"},
}
TREE = ast.parse((ROOT / "runtime" / "device.py").read_text(encoding="utf-8"))


def has_gpu() -> bool:
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


def attributes(owner: str, tree: ast.AST) -> Iterator[str]:
    """Names of all attributes of what is called `owner`, as a variable or as an attribute itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = node.value
            if owner in (getattr(base, "id", None), getattr(base, "attr", None)):
                yield node.attr


def part(name: str) -> ast.AST:
    return next(node for node in TREE.body if isinstance(node, ast.ClassDef) and node.name == name)


def test_a_machine_without_a_gpu_is_told_what_to_install() -> None:
    if has_gpu():
        pytest.skip("this machine has a GPU")
    bindings = [name for name in ("pycuda", "cuda.bindings") if _installed(name)]
    mends = "install NVIDIA's driver" if bindings else "pip install pycuda .*pip install cuda-bindings"
    with pytest.raises(BadInput, match=rf"no GPU can be used \(.+\): {mends}") as refused:
        device.open_device()
    assert "\n" not in str(refused.value)


def test_the_driver_is_named_or_none() -> None:
    found = device.driver_version()
    assert (found is not None) == has_gpu() and (found is None or found.replace(".", "").isdigit())


def test_cuda_versions_are_written_as_people_write_them() -> None:
    assert [device._dotted(version) for version in (12090, 13000, 13010)] == ["12.9", "13.0", "13.1"]


def test_a_failure_of_cuda_bears_cudas_name() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")

    def fails(code: int) -> tuple[object, ...]:
        return (driver.CUresult(code), None)

    with pytest.raises(MemoryError, match="fails: CUDA_ERROR_OUT_OF_MEMORY"):
        device._call(driver, fails, 2)
    with pytest.raises(RuntimeError, match="fails: CUDA_ERROR_ILLEGAL_ADDRESS"):
        device._call(driver, fails, 700)
    assert device._call(driver, lambda: (driver.CUresult.CUDA_SUCCESS,)) is None
    assert device._call(driver, lambda: (driver.CUresult.CUDA_SUCCESS, 7)) == 7


def test_cuda_bindings_has_all_that_is_called() -> None:
    driver = pytest.importorskip("cuda.bindings.driver", reason="needs cuda-bindings")
    assert importlib.import_module("cuda.bindings").__version__
    called = {name for owner in ("driver", "_driver") for name in attributes(owner, TREE)}
    assert {"cuStreamBeginCapture", "cuMemcpyHtoDAsync", "cuDevicePrimaryCtxRetain"} <= called
    for name in called:
        assert hasattr(driver, name), name
    for node in ast.walk(TREE):  # members of enumerations
        if isinstance(node, ast.Attribute) and node.attr.isupper() and node.attr.startswith(("CU_", "CUDA_")):
            owner = {"attribute": "CUdevice_attribute"}.get(ast.unparse(node.value), ast.unparse(node.value))
            assert hasattr(getattr(driver, owner.rpartition(".")[2]), node.attr), node.attr


def test_pycuda_has_all_that_is_called() -> None:
    tree = part("_PyCuda")
    for owner, names in PYCUDA.items():
        used = {name for each in (owner, f"_{owner}") for name in attributes(each, tree)}
        assert used and used <= names, (owner, used - names)


def test_both_bindings_do_everything() -> None:
    for kind in (device._PyCuda, device._CudaBindings):
        assert not kind.__abstractmethods__, kind


def test_no_context_of_its_own() -> None:
    """pycuda.autoinit, and a context that is made and not retained, would part us from torch and ONNX Runtime."""
    for path in (ROOT / "runtime").glob("*.py"):
        code = ast.unparse(ast.parse(path.read_text(encoding="utf-8")))
        assert "make_context" not in code and "cuCtxCreate" not in code and "import pycuda.autoinit" not in code


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
