"""Engines on a card: `make gpu-check` runs it, for each library that is there. Never run by us yet.

The net is FCN-8s, narrow, and ONNX Runtime on the CPU says what is right. Free sizes, graphs, buffers and threads are
where an engine goes wrong without saying so: a graph replayed on an address that has moved gives the picture before.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fcn.cli import BadInput
from fcn.images import preprocess
from runtime import build, sidecar
from runtime.device import open_device
from runtime.engine import EngineBackend
from runtime.lane import SIZES
from runtime.library import load
from runtime.segmenter import Segmenter
from tests.runtime.models import image, metadata
from tests.runtime.test_build import exported
from tests.runtime.test_engine import change
from tests.tolerances import GPU_BLOB

pytestmark = pytest.mark.gpu
TWO = ["--minShapes", "1x3x1x1", "1x3x30x30", "--optShapes", "1x3x64x64", "2x3x120x160"]
TWO += ["--maxShapes", "2x3x100x100", "4x3x256x256"]


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine with two profiles, its ONNX file beside it."""
    try:
        load(request.param)
        open_device()
    except BadInput as missing:
        pytest.skip(f"needs {request.param} and a GPU: {str(missing).partition(' (')[0]}")
    folder = tmp_path_factory.mktemp(request.param)
    exported("voc-fcn8s", "scores", folder / "m.onnx")
    assert build.main([str(folder / "m.onnx"), "--backend", request.param, *TWO]) == 0
    return folder / "m.engine"


@pytest.fixture
def backend(engine: Path) -> Iterator[EngineBackend]:
    made = EngineBackend(engine)
    yield made
    made.close()


@pytest.fixture
def right(engine: Path) -> Iterator[Any]:
    with Segmenter.open(engine.with_suffix(".onnx"), "cpu") as segmenter:
        yield segmenter._backend.run


def data(batch: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return preprocess([image(height, width, seed + index) for index in range(batch)], metadata().mean)


def assert_close(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape and got.dtype == np.float32
    assert np.abs(got - expected).max() <= GPU_BLOB * np.abs(expected).max()


def test_scores_at_sizes_of_both_profiles(backend: EngineBackend, right: Any) -> None:
    for size in ((1, 1, 1), (1, 97, 31), (2, 64, 64), (4, 90, 91), (1, 256, 256), (1, 2, 100)):
        x = data(*size)
        assert_close(backend.run(x), right(x))


def test_a_graph_gives_what_the_kernels_gave(backend: EngineBackend) -> None:
    """The first two runs of a size go kernel by kernel, the third and later ones are one graph."""
    x, y = data(1, 60, 70), data(1, 60, 70, seed=5)
    plain = [backend.run(x), backend.run(y)]
    for _ in range(4):
        np.testing.assert_array_equal(backend.run(x), plain[0])
        np.testing.assert_array_equal(backend.run(y), plain[1])


def test_buffers_that_move_take_their_graphs_with_them(backend: EngineBackend, right: Any) -> None:
    """Each size runs often enough to be captured, then a larger one moves the buffers, then it runs again."""
    sizes = [(1, 20 + 30 * step, 30 + 25 * step) for step in range(8)]
    for round in range(3):
        for count, size in enumerate(sizes):
            for seed in range(4):
                x = data(*size, seed=seed)
                assert_close(backend.run(x), right(x))
            small = data(*sizes[count // 2], seed=round)
            assert_close(backend.run(small), right(small))


def test_more_sizes_than_contexts(backend: EngineBackend, right: Any) -> None:
    sizes = [(1, 40 + step, 50) for step in range(SIZES + 5)]
    for size in [*sizes, *sizes, *reversed(sizes)]:
        x = data(*size)
        assert_close(backend.run(x), right(x))


def test_four_threads_get_what_one_gets(backend: EngineBackend) -> None:
    random = np.random.default_rng(0)
    inputs = [data(1, *random.integers(30, 250, 2).tolist(), seed=seed) for seed in range(12)]
    alone = [backend.run(x) for x in inputs]
    with ThreadPoolExecutor(6) as threads:
        for got, expected in zip(threads.map(backend.run, inputs * 8), alone * 8, strict=True):
            assert_close(got, expected)


def test_memory_stays_flat(backend: EngineBackend) -> None:
    """Of the card's and of ours, once every size was seen: 200 inputs of twelve sizes from four threads."""
    inputs = [data(1, 40 + 15 * step, 60 + 10 * step) for step in range(12)]

    def work() -> tuple[float, float]:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(backend.run, inputs * 17))
        return _card_mib(), _own_mib()

    work()
    before = work()
    after = work()
    assert after[0] - before[0] <= 64 and after[1] - before[1] <= 64


def test_everything_is_given_back(engine: Path) -> None:
    x = data(4, 200, 200)
    levels = []
    for _ in range(6):
        opened = EngineBackend(engine)
        opened.run(x)
        opened.close()
        opened.close()
        levels.append(_card_mib())
        with pytest.raises(ValueError, match="closed"):
            opened.run(x)
    assert levels[-1] - levels[1] <= 64, levels


def test_time_on_the_card(backend: EngineBackend) -> None:
    x = data(1, 96, 128)
    assert 0 < backend.gpu_milliseconds(x) < 10_000
    np.testing.assert_array_equal(backend.run(x), backend.run(x))


def test_the_face(engine: Path, right: Any) -> None:
    picture = image(97, 131)
    with Segmenter.open(engine) as segmenter:
        assert segmenter.backend.startswith(sidecar.read(engine).library)
        assert open_device().name in segmenter.backend
        np.testing.assert_array_equal(segmenter(picture), segmenter.scores(picture).argmax(axis=0))
        assert_close(segmenter.scores(picture)[None], right(preprocess([picture], segmenter.metadata.mean)))


def test_outside_the_profiles(engine: Path, right: Any) -> None:
    x = data(1, 300, 300)
    with (
        Segmenter.open(engine) as segmenter,
        pytest.raises(BadInput, match=r"1x3x300x300 is outside its profiles \(1x3"),
    ):
        segmenter(image(300, 300))
    with Segmenter.open(engine, provider="auto", fallback=engine.with_suffix(".onnx")) as segmenter:
        assert_close(segmenter.scores(image(300, 300))[None], right(x))


def test_another_card(engine: Path, tmp_path: Path) -> None:
    copy = tmp_path / "m.engine"
    copy.write_bytes(engine.read_bytes())
    (tmp_path / "m.engine.json").write_text((engine.parent / "m.engine.json").read_text())
    if sidecar.read(engine).backend == "tensorrt-rtx":
        change(copy, targets=["7.5"])
    else:
        change(copy, gpu="NVIDIA GeForce 256")
    with pytest.raises(BadInput, match=r"m\.engine: built for .*, and this is .*; python runtime/build.py"):
        EngineBackend(copy)


def test_beside_torch_in_one_process(backend: EngineBackend, right: Any) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA build of torch")
    there = torch.arange(1000, device="cuda", dtype=torch.float32)
    x = data(1, 80, 80)
    for _ in range(4):
        assert_close(backend.run(x), right(x))
        assert (there * 2).sum().item() == 999000


def _card_mib() -> float:
    """Memory that this process holds on the card, by nvidia-smi."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except OSError:
        pytest.skip("needs nvidia-smi (Jetson has none)")
    own = [float(line.split(",")[1]) for line in lines if int(line.split(",")[0]) == os.getpid()]
    if not own:
        pytest.skip("nvidia-smi does not see this process (a container hides its id)")
    return own[0]


def _own_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
