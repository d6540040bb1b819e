"""export/ends.py: pixels become Caffe's input bit for bit, and labels are those of the scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from export.ends import halves
from export.graph import to_model
from export.to_onnx import main
from fcn.cli import BadInput
from fcn.images import preprocess, read_image
from reference.data.shapes import Shapes
from reference.data.voc import MEAN
from reference.layers import Concat, Convolution, Input
from reference.net import Net, NetSpec
from tests.export.nets import NAMES, compute, narrow, session, small

LEVELS = np.arange(256, dtype=np.uint8)


def shown(name: str) -> onnxruntime.InferenceSession:
    """The narrow net from pixels to labels, which gives Caffe's input too."""
    model = to_model(narrow(name), "image", expose=["score"], mean=MEAN)
    model.graph.output.append(helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, "H", "W"]))
    return session(model)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_caffes_bit_for_bit_and_the_labels_those_of_the_scores(name: str) -> None:
    opened, scores, random = shown(name), session(to_model(narrow(name))), np.random.RandomState(0)
    for size in ((1, 1, 1), (2, 37, 53), (1, 3, 131), (1, 96, 64)):
        image = random.randint(0, 256, (*size, 3)).astype(np.uint8)
        found, x = compute(opened, image=image), preprocess(image, MEAN)
        assert found["data"].tobytes() == x.tobytes()
        assert found["label"].dtype == np.uint8 and found["label"].shape == size
        assert np.array_equal(found["score"], score := compute(scores, data=x)["score"])
        assert np.array_equal(found["label"], score.argmax(1))


def test_real_photographs(shared: Path) -> None:
    opened, scores = shown("voc-fcn8s"), session(to_model(narrow()))
    for path in sorted((shared / "data" / "voc").rglob("*.jpg"))[:3]:
        image = read_image(path)[None]
        score = compute(scores, data=preprocess(image, MEAN))["score"]
        assert np.array_equal(compute(opened, image=image)["label"], score.argmax(1))


def test_every_value_of_every_channel() -> None:
    image = np.zeros((3, 16, 16, 3), np.uint8)
    for channel in range(3):
        image[channel, :, :, channel] = LEVELS.reshape(16, 16)
    assert compute(shown(NAMES[0]), image=image)["data"].tobytes() == preprocess(image, MEAN).tobytes()


def test_what_it_takes_and_gives() -> None:
    graph = to_model(narrow(), "image", mean=MEAN).graph
    ends = [
        (end.name, end.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in end.type.tensor_type.shape.dim])
        for end in (*graph.input, *graph.output)
    ]
    assert ends == [
        ("image", TensorProto.UINT8, ["N", "H", "W", 3]),
        ("label", TensorProto.UINT8, ["N", "H", "W"]),
    ]


MEANS = (
    MEAN,
    Shapes.mean,
    (104.00698793, 116.66876762, 122.67891434),  # ImageNet's, as Caffe's models have it
    (104.007, 116.669, 122.679),  # PASCAL-Context
    (116.190, 97.203, 92.318),  # NYUDv2
    (132.431, 94.076, 118.477),  # HHA
    (114.578, 115.294, 108.353),  # SIFT Flow
    (0.0, 1e-9, 255.9),
)


@pytest.mark.parametrize("mean", MEANS)
def test_a_mean_in_two_halves_rounds_once(mean: tuple[float, float, float]) -> None:
    bytes_ = LEVELS.reshape(1, 256, 1, 1).repeat(3, axis=3)
    high, low = halves(mean)
    assert high.dtype == low.dtype == np.float32
    x = LEVELS.astype(np.float32).reshape(1, 256, 1)
    assert np.array_equal(((x - high) - low)[None], preprocess(bytes_, mean))


def test_a_float32_mean_would_round_twice() -> None:
    """Hence the halves."""
    x = LEVELS.astype(np.float32).reshape(1, 256, 1)
    once = preprocess(LEVELS.reshape(1, 256, 1, 1).repeat(3, axis=3), MEAN)[0]
    assert np.mean(x - np.array(MEAN, np.float32).reshape(3, 1, 1) != once) > 0.2


def test_what_takes_no_image_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = Convolution(name="score", bottoms=("data",), tops=("score",), num_output=2, kernel_size=(1, 1))
    two = [Input(name=name, tops=(name,), shape=(1, 3, 8, 8)) for name in ("color", "hha")]
    late = Net(NetSpec("late", (*two, Concat(name="both", bottoms=("color", "hha"), tops=("both",)))))
    for net, mean in ((small(head), MEAN), (late, MEAN), (narrow(), None)):
        with pytest.raises(BadInput, match=r"no net of one image with three channels and a known mean.*--io labels"):
            to_model(net, "image", mean=mean)
    with pytest.raises(BadInput, match=r"mean 100\.0000\d+, 0, 0: not to be subtracted in float32"):
        halves((100 + 2**-18 + 2**-44, 0, 0))  # a hair above the middle of two float32
    out = tmp_path / "net.onnx"
    assert main(["--width", "0.02", "--io", "image", "-o", str(out)]) == 0
    assert "labels equal on 100" in capsys.readouterr().out and out.exists()
