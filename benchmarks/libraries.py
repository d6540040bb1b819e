"""Two more libraries as contenders on a CPU, at their best documented settings: OpenCV's DNN module and OpenVINO."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.contenders import Absent, Contender, Origin, Task
from reference.caffe import save_caffemodel, save_prototxt
from reference.layers import Pair
from reference.net import Net

CAFFEMODEL = "net.caffemodel"


def save_for_opencv(net: Net, folder: Path, sizes: Iterable[Pair]) -> None:
    """The net as Caffe's files, a prototxt for each size: OpenCV 4 reads no ONNX file of free sizes."""
    for height, width in sizes:
        save_prototxt(net, folder / f"{height}x{width}.prototxt", deploy=True, size=(height, width))
    save_caffemodel(net, folder / CAFFEMODEL)


def opencv(task: Task) -> Contender:
    """OpenCV's DNN module with its own CPU kernels (Winograd where it can), by its Caffe importer. The files lie beside
    the model, where `save_for_opencv` put them.
    """
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise Absent(f"OpenCV {cv2.__version__} reads no Caffe model: pip install 'opencv-python<5'")
    assert task.subject.model
    folder, (height, width) = task.subject.model.parent, task.x.shape[2:]
    cv2.setNumThreads(task.threads)
    net = cv2.dnn.readNetFromCaffe(str(folder / f"{height}x{width}.prototxt"), str(folder / CAFFEMODEL))
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)

    def run() -> np.ndarray:
        net.setInput(task.x, task.subject.metadata.input)
        return net.forward(task.subject.metadata.output)

    origin = Origin(f"OpenCV {cv2.__version__}", "OpenCV CPU", "float32")
    return Contender("OpenCV DNN", "Caffe importer, own kernels, Winograd and layer fusion", origin, run)


def openvino(task: Task) -> Contender:
    """OpenVINO's CPU plugin on the .onnx file, reshaped to this size, in float32 (its default may be bfloat16)."""
    try:
        import openvino as ov
    except ImportError as missing:
        raise Absent("needs OpenVINO: pip install openvino") from missing
    core = ov.Core()
    start = time.perf_counter()
    model = core.read_model(str(task.subject.model))
    model.reshape({task.subject.metadata.input: list(task.x.shape)})
    compiled = core.compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",
            "EXECUTION_MODE_HINT": "ACCURACY",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": task.threads,
        },
    )
    seconds = time.perf_counter() - start
    request = compiled.create_infer_request()

    def run() -> np.ndarray:
        request.infer({task.subject.metadata.input: task.x}, share_inputs=True)
        return request.get_tensor(task.subject.metadata.output).data.copy()

    version = ov.get_version().partition("-")[0]
    origin = Origin(f"OpenVINO {version}", core.get_property("CPU", "FULL_DEVICE_NAME"), "float32", None, seconds)
    return Contender("OpenVINO", "CPU plugin, latency hint, static size", origin, run)
