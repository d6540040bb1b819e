"""What needs an NVIDIA GPU; `make gpu-check` runs it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export.to_onnx import export_onnx, randomise
from reference import CaffeSGD, build
from reference.checkpoint import About
from runtime import Segmenter
from tests.tolerances import GPU_BLOB, GPU_WEIGHTS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU and a CUDA build of torch"),
]
ABOUT = About(
    recipe="test",
    iteration=0,
    dataset="voc",
    classes=tuple(map(str, range(21))),
    palette=tuple((i, i, i) for i in range(21)),
    mean=(104.00699, 116.66877, 122.67892),
)


@pytest.fixture
def exact():
    """Convolutions in float32: TF32 keeps ten bits of each factor."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def narrow():
    net = build("voc-fcn8s", width=1 / 8)
    randomise(net, seed=0)
    return net


@pytest.mark.usefixtures("exact")
def test_every_top_is_the_same_on_the_gpu():
    net = narrow().eval()
    data = torch.from_numpy(np.random.RandomState(0).uniform(-120, 130, (1, 3, 97, 131)).astype(np.float32))
    with torch.no_grad():
        cpu = net.blobs(data=data)
        gpu = net.cuda().blobs(data=data.cuda())
    for name, blob in cpu.items():
        assert (gpu[name].cpu() - blob).abs().max() <= GPU_BLOB * blob.abs().max(), name


@pytest.mark.usefixtures("exact")
def test_a_solver_step_is_the_same_on_the_gpu():
    data = torch.from_numpy(np.random.RandomState(0).uniform(-120, 130, (1, 3, 97, 131)).astype(np.float32))
    label = torch.from_numpy(np.random.RandomState(1).randint(0, 21, (1, 1, 97, 131)))
    ends = []
    for device in ("cpu", "cuda"):
        net = narrow().eval().to(device)
        solver = CaffeSGD(net, 1e-10, momentum=0.99, weight_decay=5e-4)
        for _ in range(3):
            net.total_loss(data=data.to(device), label=label.to(device)).backward()
            solver.step()
            solver.zero_grad()
        ends.append({key: value.cpu() for key, value in net.state_dict().items()})
    for key, cpu in ends[0].items():
        assert (ends[1][key] - cpu).norm() <= GPU_WEIGHTS * cpu.norm(), key


def test_the_runtime_runs_on_cuda(tmp_path):
    export_onnx(narrow(), tmp_path / "model.onnx", ABOUT)
    image = np.random.RandomState(0).randint(0, 256, (97, 131, 3)).astype(np.uint8)
    cpu = Segmenter.open(tmp_path / "model.onnx", provider="cpu").scores(image)
    segmenter = Segmenter.open(tmp_path / "model.onnx", provider="cuda")
    assert "CUDAExecutionProvider" in segmenter.backend
    assert np.abs(segmenter.scores(image) - cpu).max() <= GPU_BLOB * np.abs(cpu).max()
