"""The runtime runs with the project's base dependencies alone: no torch, no `reference`, no `export`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fcn.images import read_image, read_label, write_image
from runtime.segmenter import Segmenter
from tests.runtime.models import image, save

PROJECT = "fcn-caffe-faithful"
OURS_BUT_FORBIDDEN = {"reference", "export", "benchmarks", "tests"}

# Refuses the modules named in argv[1], then runs the rest of the command line as runtime/segment.py would.
GUARDED = """
import json, sys
class Refuse:
    refused = set(json.loads(sys.argv.pop(1)))
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.refused:
            raise ModuleNotFoundError(f"{name} is none of the runtime's dependencies", name=name)
started = set(sys.modules)
sys.meta_path.insert(0, Refuse())
import runtime, runtime.metadata, runtime.segment
code = runtime.segment.main()
loaded = Refuse.refused & {name.partition(".")[0] for name in set(sys.modules) - started}
assert not loaded, loaded
sys.exit(code)
"""


def base_dependencies() -> set[str]:
    """Names of all distributions that `pip install .` without extras brings, the project's own included."""
    found: set[str] = set()
    waiting = [PROJECT]
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for text in distribution(name).requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def test_a_whole_run_imports_base_dependencies_only(tmp_path: Path) -> None:
    allowed = base_dependencies()
    assert "numpy" in allowed and "torch" not in allowed and "onnx" not in allowed
    refused = OURS_BUT_FORBIDDEN | {"torch", "onnx"}
    for module, owners in packages_distributions().items():
        if not allowed & {canonicalize_name(owner) for owner in owners}:
            refused.add(module)
    model = save(tmp_path / "model.onnx")
    write_image(tmp_path / "a.png", image(11, 13))
    arguments = [str(model), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--overlay"]
    done = subprocess.run(
        [sys.executable, "-c", GUARDED, json.dumps(sorted(refused)), *arguments, "--probabilities", "--threads", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    with Segmenter.open(model, "cpu", 1) as seg:
        expected = seg(read_image(tmp_path / "a.png"))
    assert (read_label(tmp_path / "out" / "a.png") == expected).all()


def test_importing_the_package_loads_no_inference_library() -> None:
    code = "import sys, runtime.metadata; print(sorted({'numpy', 'onnxruntime', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")
def test_a_net_that_exceeds_the_memory_says_so(tmp_path: Path) -> None:
    import numpy as np

    from tests.runtime.models import metadata

    classes = [f"class {k}" for k in range(255)]
    properties = metadata(classes=classes).to_properties()
    model = save(tmp_path / "wide.onnx", weight=np.ones((255, 3, 1, 1), np.float32), properties=properties)
    code = f"""
import resource
import numpy as np
from runtime.segmenter import Segmenter
seg = Segmenter.open({str(model)!r}, "cpu", 1)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, now + 2**28))
seg(np.zeros((1000, 1000, 3), np.uint8))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = "not enough memory for an image of 1000 x 1000; reduce the image, the batch or the tile"
    assert done.stderr.strip().endswith(said)
