"""runtime/segmenter.py: the authors' preprocessing, labels, probabilities, and what is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import runtime
from fcn.cli import BadInput
from fcn.images import preprocess
from runtime.segmenter import Segmenter, labels, softmax
from tests.runtime.models import MEAN, WEIGHT, image, metadata, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(folder / "scores.onnx")
    save(folder / "labels.onnx", "labels")
    save(folder / "image.onnx", "image")
    return folder


def opened(path: Path) -> Segmenter:
    return Segmenter.open(path, provider="cpu", threads=1)


def as_the_authors_did(picture: np.ndarray) -> np.ndarray:
    """The authors' steps, one by one: float32, RGB to BGR, minus the mean, channels first."""
    values = np.array(picture, dtype=np.float32)
    values = values[:, :, ::-1]
    values -= np.array(MEAN)
    return values.transpose((2, 0, 1))


def test_preprocessing_is_the_authors_bit_for_bit() -> None:
    every_value = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for pictures in ([every_value], [image(37, 53, 1), image(37, 53, 2)], [image(1, 1)]):
        x = preprocess(pictures, MEAN)
        assert x.dtype == np.float32 and x.flags.c_contiguous
        expected = np.stack([as_the_authors_did(picture) for picture in pictures])
        assert x.tobytes() == np.ascontiguousarray(expected).tobytes()


def test_preprocessing_takes_views_and_leaves_the_image_alone() -> None:
    picture = image(8, 9)
    before = picture.copy()
    picture.flags.writeable = False
    flipped = picture[:, ::-1]
    np.testing.assert_array_equal(preprocess([flipped], MEAN)[0], as_the_authors_did(flipped))
    np.testing.assert_array_equal(picture, before)


def test_labels_are_the_argmax_of_the_net(folder: Path) -> None:
    with opened(folder / "scores.onnx") as seg, opened(folder / "labels.onnx") as label_seg:
        for height, width in ((5, 7), (1, 1), (64, 31)):
            picture = image(height, width)
            expected = np.einsum("kc,chw->khw", WEIGHT[:, :, 0, 0], preprocess([picture], MEAN)[0])
            np.testing.assert_allclose(seg.scores(picture), expected, rtol=1e-5, atol=1e-4)
            got = seg(picture)
            assert got.shape == (height, width) and got.dtype == np.uint8
            np.testing.assert_array_equal(got, seg.scores(picture).argmax(axis=0))
            np.testing.assert_array_equal(got, label_seg(picture))


def test_a_model_that_takes_pixels_gets_them_as_they_are(folder: Path) -> None:
    with opened(folder / "labels.onnx") as seg, opened(folder / "image.onnx") as pixels:
        for picture in (image(5, 7), image(64, 31)[::2, ::-1], image(1, 1)):
            np.testing.assert_array_equal(pixels(picture), seg(picture))
        with pytest.raises(BadInput, match=r"image.onnx: gives labels, not scores"):
            pixels.scores(image(4, 4))
        with pytest.raises(BadInput, match="not enough memory for an image of 16777216 x 16777216"):
            pixels(np.lib.stride_tricks.as_strided(image(1, 1), (2**24, 2**24, 3), (0, 0, 1)))


def test_the_first_of_equal_scores_wins(tmp_path: Path) -> None:
    weight = np.zeros((5, 3, 1, 1), np.float32)
    weight[2:] = 1  # the score of classes 2, 3, 4 is one sum, that of 0 and 1 is zero
    picture = np.concatenate([np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)])
    for io in ("scores", "labels", "image"):
        got = opened(save(tmp_path / f"{io}.onnx", io, weight=weight))(picture)
        assert (got[:4] == 2).all() and (got[4:] == 0).all()


def test_probabilities_are_a_softmax(folder: Path) -> None:
    picture = image(20, 30)
    with opened(folder / "scores.onnx") as seg:
        got, scores = seg.probabilities(picture), seg.scores(picture).astype(np.float64)
    expected = np.exp(scores) / np.exp(scores).sum(axis=0)
    assert got.shape == (5, 20, 30) and got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-7)
    assert np.abs(got.sum(axis=0) - 1).max() < 1e-6


def test_softmax_of_extreme_scores_is_finite() -> None:
    got = softmax(np.array([1e4, -1e4, 1e4], np.float32).reshape(3, 1, 1))
    np.testing.assert_array_equal(got.ravel(), [0.5, 0, 0.5])


def test_probabilities_need_scores(folder: Path) -> None:
    with (
        opened(folder / "labels.onnx") as seg,
        pytest.raises(BadInput, match=r"labels.onnx: gives labels, not scores; export it with .* --io scores"),
    ):
        seg.probabilities(image(4, 4))


def test_a_batch_is_its_images_one_by_one(folder: Path) -> None:
    pictures = [image(9, 11, seed) for seed in range(3)]
    for name in ("scores.onnx", "labels.onnx", "image.onnx"):
        with opened(folder / name) as seg:
            got = seg.batch(pictures)
            assert got.shape == (3, 9, 11) and got.dtype == np.uint8
            np.testing.assert_array_equal(got, [seg(picture) for picture in pictures])
            np.testing.assert_array_equal(got, seg.batch(np.stack(pictures)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((4, 4, 3), np.float32), r"H x W x 3 uint8 RGB array, not float32 of \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"not uint8 of \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"not uint8 of \(4, 4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), r"not uint8 of \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not uint8 of \(0, 4, 3\)"),
        ([[1, 2, 3]], "not list"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image_is_bad_input(folder: Path, wrong: object, message: str) -> None:
    with opened(folder / "scores.onnx") as seg, pytest.raises(BadInput, match=message):
        seg(wrong)  # type: ignore[arg-type]


def test_a_batch_of_two_sizes_or_none_is_bad_input(folder: Path) -> None:
    with opened(folder / "scores.onnx") as seg:
        with pytest.raises(BadInput, match=r"one size.*\(4, 4, 3\) and \(4, 5, 3\)"):
            seg.batch([image(4, 4), image(4, 5)])
        with pytest.raises(BadInput, match="no images"):
            seg.batch([])


def test_other_files_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    for name, message in (
        ("net.trt", "not a model file; give the .onnx file"),
        ("net.caffemodel", "not a model file; give the .onnx file"),
    ):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(BadInput, match=rf"{name}: {message}"):
            Segmenter.open(tmp_path / name)
    with pytest.raises(BadInput, match="no such file"):
        Segmenter.open(tmp_path / "none.onnx")


def test_a_net_that_gives_another_size_is_refused(tmp_path: Path) -> None:
    kernel = np.ones((5, 3, 3, 3), np.float32)
    with pytest.raises(BadInput, match=r"gives 1 x 5 x 2 x 3 where 1 x 5 x 4 x 5 is due"):
        opened(save(tmp_path / "valid.onnx", weight=kernel))(image(4, 5))


def test_memory_that_does_not_suffice_is_one_clear_line(folder: Path) -> None:
    """2^48 pixels that are all one byte in memory: nothing can hold them as float32."""
    vast = np.lib.stride_tricks.as_strided(image(1, 1), (2**24, 2**24, 3), (0, 0, 1))
    with (
        opened(folder / "scores.onnx") as seg,
        pytest.raises(BadInput, match="not enough memory for an image of 16777216 x 16777216; reduce the image"),
    ):
        seg(vast)


def test_several_threads_share_one_segmenter(folder: Path) -> None:
    pictures = [image(30 + seed, 40, seed) for seed in range(8)]
    with opened(folder / "scores.onnx") as seg:
        alone = [seg(picture) for picture in pictures]
        with ThreadPoolExecutor(4) as pool:
            for expected, got in zip(alone * 3, pool.map(seg, pictures * 3), strict=True):
                np.testing.assert_array_equal(got, expected)


def test_the_face(folder: Path) -> None:
    assert runtime.Segmenter is Segmenter
    with runtime.Segmenter.open(str(folder / "scores.onnx")) as seg:
        assert seg.metadata == metadata()
        assert seg.backend.startswith("ONNX Runtime ") and seg.backend.endswith("ExecutionProvider")
    with pytest.raises(ValueError, match="closed"):
        seg(image(4, 4))
    with pytest.raises(AttributeError):
        runtime.Nothing  # noqa: B018


def test_labels_of_a_batch_and_of_one() -> None:
    scores = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(labels(scores), scores.argmax(axis=1))
    np.testing.assert_array_equal(labels(scores[0]), scores[0].argmax(axis=0))
