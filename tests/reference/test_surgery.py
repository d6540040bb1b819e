"""A classifier turned into an FCN, stages started from one another, and bilinear kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from reference.builder import Builder
from reference.layers import Convolution, Crop, Deconvolution
from reference.net import Net, NetSpec
from reference.surgery import Report, expand_score, interpolate, transplant, widen
from tests.tolerances import BLOB, FLOAT32

WIDTH = 1 / 16


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def randomized(name: str, seed: int = 0) -> Net:
    """A narrow net with random weights, but for its deconvolutions."""
    net = reference.build(name, width=WIDTH).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in net.spec.layers:
            if isinstance(layer, Convolution) and not isinstance(layer, Deconvolution):
                weight, bias = net.layer(layer.name).parameters()
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5, generator=generator)
                bias.normal_(generator=generator)
    return net


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= BLOB * theirs.abs().max()


# --- classifier -> FCN (section 3.1) ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def classifier() -> Net:
    torch.manual_seed(0)
    net = reference.build("vgg16", width=WIDTH, classes=10).eval()
    with torch.no_grad():
        for key, parameter in net.named_parameters():
            if key.endswith("bias"):
                parameter.normal_(0, 10)
    return net


def test_what_becomes_of_each_blob(classifier: Net) -> None:
    fcn = reference.build("voc-fcn32s", width=WIDTH)
    report = transplant(fcn, classifier)
    assert report.coerced == ["fc6.weight", "fc7.weight"]
    assert report.dropped == ["fc8.weight", "fc8.bias"]
    assert report.missing == ["score_fr.weight", "score_fr.bias", "upscore.weight"]
    assert set(report.copied) == set(classifier.state_dict()) - {*report.coerced, *report.dropped}
    assert len(report.copied) == 28
    assert str(report) == (
        "28 blobs copied\n"
        "  reshaped: fc6.weight from 256 x 1568 to 256 x 32 x 7 x 7, fc7.weight from 256 x 256 to 256 x 256 x 1 x 1\n"
        "  dropped, the net has none: fc8 (weight, bias)\n"
        "  missing, the net keeps its own: score_fr (weight, bias), upscore (weight)"
    )
    weights = classifier.state_dict()
    assert fcn.layer("fc6").weight.shape == (256, 32, 7, 7)
    for key in (*report.copied, *report.coerced):
        assert torch.equal(fcn.state_dict()[key], weights[key].view_as(fcn.state_dict()[key]))
    assert not fcn.layer("score_fr").weight.any() and fcn.layer("upscore").weight.any()


def test_a_classifier_is_an_fcn_over_one_window(classifier: Net) -> None:
    """With conv1_1 padded by 1 as in the classifier, fc7 of a 224 x 224 image is the classifier's fc7."""
    spec = reference.NETS["voc-fcn32s"](width=WIDTH)
    trunk = [replace(x, pad=(1, 1)) if isinstance(x, Convolution) and x.name == "conv1_1" else x for x in spec.layers]
    fcn = Net(NetSpec("unpadded", tuple(trunk[: [x.name for x in trunk].index("score_fr")]))).eval()
    transplant(fcn, classifier)
    x = noise(2, 3, 224, 224) * 60
    with torch.inference_mode():
        (ours,), theirs = fcn.run(("fc7",), {"data": x}).values(), classifier.blobs(data=x)
        assert ours.shape == (2, 256, 1, 1)
        close(ours.flatten(1), theirs["fc7"])
        assert 0.1 < (theirs["fc7"] > 0).float().mean() < 0.9, "a test on dead units proves nothing"
        assert fcn.run(("fc7",), {"data": noise(1, 3, 288, 256)})["fc7"].shape == (1, 256, 3, 2)


def test_each_window_of_the_score_map_is_the_classifier_on_that_window(classifier: Net) -> None:
    """The padded FCN's fc7 at (i, j) is the classifier's fc6 and fc7 on the 7 x 7 of pool5 that begins there."""
    fcn = reference.build("voc-fcn32s", width=WIDTH).eval()
    transplant(fcn, classifier)
    with torch.inference_mode():
        blobs = fcn.blobs(data=noise(1, 3, 90, 60) * 60)
        for i, j in ((0, 0), (2, 1)):
            window = blobs["pool5"][:, :, i : i + 7, j : j + 7]
            top = classifier.layer("fc7")(classifier.layer("fc6")(window).relu()).relu()
            close(blobs["fc7"][:, :, i, j], top)


def test_nothing_is_written_when_something_does_not_fit(classifier: Net) -> None:
    fcn = randomized("voc-fcn32s")
    before = {key: value.clone() for key, value in fcn.state_dict().items()}
    weights = classifier.state_dict() | {"fc7.weight": torch.zeros(7, 7)}
    with pytest.raises(ValueError, match=r"fc7.weight is \(7, 7\) in the weights but \(256, 256, 1, 1\) in voc-fcn32s"):
        transplant(fcn, weights)
    assert all(torch.equal(value, before[key]) for key, value in fcn.state_dict().items())


def test_weights_are_copied_not_shared(classifier: Net) -> None:
    fcn = reference.build("voc-fcn32s", width=WIDTH)
    transplant(fcn, {"conv1_1.bias": classifier.layer("conv1_1").bias})
    with torch.no_grad():
        fcn.layer("conv1_1").bias.add_(1)
    assert not torch.equal(fcn.layer("conv1_1").bias, classifier.layer("conv1_1").bias)
    assert fcn.layer("conv1_1").bias.requires_grad


def test_a_suffix_finds_the_stream_of_a_net_of_two() -> None:
    """As solve.py of nyud-fcn32s-color-hha takes the colour net's weights into conv1_1color, and then HHA's."""
    source = {"conv.weight": noise(4, 3, 1, 1), "conv.bias": noise(4, seed=1), "type.weight": noise(2, 4, seed=2)}
    n = Builder("two")
    streams = [n.input(name, 3, (6, 6)) for name in ("color", "hha")]
    for name, top in zip(("color", "hha"), streams, strict=True):
        n.conv(f"type{name}", n.conv(f"conv{name}", top, 4, 1), 2, 1)
    net = Net(n.spec())
    report = transplant(net, source, suffix="hha")
    assert report.copied == ["convhha.weight", "convhha.bias"] and report.coerced == ["typehha.weight"]
    assert report.missing == [
        "convcolor.weight",
        "convcolor.bias",
        "typecolor.weight",
        "typecolor.bias",
        "typehha.bias",
    ]
    assert torch.equal(net.layer("convhha").weight, source["conv.weight"]) and not net.layer("convcolor").weight.any()
    assert str(report).splitlines()[2].endswith("convcolor (weight, bias), typecolor (weight, bias), typehha (bias)")


def test_late_fusion_starts_from_the_nets_of_both_images() -> None:
    """Its fused scores are then the mean of theirs."""
    color, hha = (randomized(f"nyud-fcn32s-{name}", seed) for seed, name in enumerate(("color", "hha")))
    net = reference.build("nyud-fcn32s-color-hha", width=WIDTH).eval()
    for name, source in (("color", color), ("hha", hha)):
        report = transplant(net, source, suffix=name)
        assert report.dropped == [f"upscore{name}.weight"] and not report.coerced
    one, other = noise(1, 3, 40, 60) * 60, noise(1, 3, 40, 60, seed=1) * 60
    with torch.inference_mode():
        scores = [source.run(("score_fr",), {"data": x})["score_fr"] for source, x in ((color, one), (hha, other))]
        close(net.run(("score_fused",), {"color": one, "hha": other})["score_fused"], sum(scores) / 2)
        assert net(color=one, hha=other).shape == (1, 40, 40, 60)


def test_early_fusion_starts_depth_at_the_mean_of_the_colours(classifier: Net) -> None:
    net = reference.build("nyud-fcn32s-color-d", width=WIDTH).eval()
    plain = reference.build("nyud-fcn32s-color", width=WIDTH).eval()
    weights = classifier.state_dict()
    for each in (net, plain):
        transplant(each, weights)
    widen(net, "conv1_1_bgrd", weights, "conv1_1")
    blob = net.get_parameter("conv1_1_bgrd.weight")
    assert torch.equal(blob[:, :3], weights["conv1_1.weight"])
    assert torch.equal(blob[:, 3], weights["conv1_1.weight"].mean(1))
    color, depth = noise(1, 3, 40, 60) * 60, noise(1, 1, 40, 60, seed=1) * 60
    with torch.inference_mode():
        # A depth of zero changes nothing; any other is a grey image of its third beside the colours.
        for value in (torch.zeros_like(depth), depth):
            ours = net.run(("fc7",), {"color": color, "depth": value})["fc7"]
            close(ours, plain.run(("fc7",), {"data": color + value / 3})["fc7"])


def test_widening_what_does_not_fit() -> None:
    net = reference.build("nyud-fcn32s-color-d", width=WIDTH)
    for weight, bias in (((4, 5, 3, 3), (4,)), ((3, 3, 3, 3), (4,)), ((4, 3, 5, 3), (4,)), ((4, 3, 3, 3), (3,))):
        with pytest.raises(ValueError, match="conv1_1_bgrd: conv1_1's weights of"):
            weights = {"conv1_1.weight": torch.ones(weight), "conv1_1.bias": torch.ones(bias)}
            widen(net, "conv1_1_bgrd", weights, "conv1_1")
    assert not any(blob.any() for blob in net.layer("conv1_1_bgrd").parameters())


def test_an_empty_report() -> None:
    assert str(Report()) == "0 blobs copied"


# --- stage to stage -----------------------------------------------------------------------------------------


def test_a_stage_starts_where_the_coarser_one_ended() -> None:
    """Same scores at stride 32; the new skip adds nothing yet; the last upsampling is another one."""
    coarse, fine = randomized("voc-fcn32s"), reference.build("voc-fcn16s", width=WIDTH).eval()
    report = transplant(fine, coarse)
    assert report.missing == ["upscore2.weight", "score_pool4.weight", "score_pool4.bias", "upscore16.weight"]
    assert report.dropped == ["upscore.weight"] and not report.coerced
    x = noise(1, 3, 64, 80) * 60
    with torch.inference_mode():
        ours, theirs = fine.blobs(data=x), coarse.blobs(data=x)
        assert torch.equal(ours["score_fr"], theirs["score_fr"])
        assert not ours["score_pool4"].any()
        assert torch.equal(ours["fuse_pool4"], ours["upscore2"])
        # Bilinear twice and then sixteen times is not bilinear 32 times, though not far from it.
        gap = (ours["score"] - theirs["score"]).abs().max() / theirs["score"].abs().max()
        assert 1e-3 < gap < 0.5


def test_the_third_stage_starts_from_the_second() -> None:
    coarse, fine = randomized("voc-fcn16s"), reference.build("voc-fcn8s", width=WIDTH).eval()
    report = transplant(fine, coarse)
    assert report.missing == ["upscore_pool4.weight", "score_pool3.weight", "score_pool3.bias", "upscore8.weight"]
    assert report.dropped == ["upscore16.weight"]
    x = noise(1, 3, 64, 80) * 60
    with torch.inference_mode():
        ours, theirs = fine.blobs(data=x), coarse.blobs(data=x)
    assert torch.equal(ours["fuse_pool4"], theirs["fuse_pool4"])
    assert torch.equal(ours["fuse_pool3"], ours["upscore_pool4"])


def upsample(net: Net, score_fr: Tensor) -> Tensor:
    """A net's deconvolutions and last crop on a map of stride 32, as if every skip scored 0."""
    top, offset = score_fr, 0
    for layer in net.spec.layers:
        if isinstance(layer, Deconvolution):
            top = net.layer(layer.name)(top)
        elif isinstance(layer, Crop):
            offset = layer.offset[0]
    return top[:, :, offset:, offset:]


@pytest.mark.parametrize("name", ["voc-fcn16s", "voc-fcn8s"])
def test_stages_upsample_the_same_straight_ramp_to_the_same_place(name: str) -> None:
    """Interpolation of a linear map is that map whichever way it goes, so it shows any shift between stages."""
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    ramp = torch.stack([3 + 2 * rows, 5 * columns - rows, torch.ones(12, 12)])[None]
    coarse, fine = (reference.build(each, width=WIDTH, classes=3).double() for each in ("voc-fcn32s", name))
    one, other = upsample(coarse, ramp.double()), upsample(fine, ramp.double())
    size = min(one.shape[2], other.shape[2])
    inside = slice(64, size - 64)
    assert size - 128 > 150
    torch.testing.assert_close(one[:, :, inside, inside], other[:, :, inside, inside], rtol=0, atol=1e-10)
    # The slope is 1/32 of the map's.
    step = one[0, 0, 65:100, 70] - one[0, 0, 64:99, 70]
    torch.testing.assert_close(step, torch.full_like(step, 2 / 32))


# --- bilinear kernels ---------------------------------------------------------------------------------------


def upsample_filt(size: int) -> np.ndarray:
    """The definition: a tent as wide as twice the factor, centred on the kernel."""
    factor = (size + 1) // 2
    centre = (size - 1) / 2
    return np.array(
        [[(1 - abs(i - centre) / factor) * (1 - abs(j - centre) / factor) for j in range(size)] for i in range(size)]
    )


def deconvolution(kernel: int, stride: int, channels: int = 3, **options: object) -> Net:
    n = Builder("up")
    layer = Deconvolution(
        name="up",
        bottoms=(n.input("data", channels, (6, 6)),),
        tops=("up",),
        num_output=channels,
        kernel_size=(kernel, kernel),
        stride=(stride, stride),
        bias_term=False,
    )
    n.add(replace(layer, **options))
    return Net(n.spec())


@pytest.mark.parametrize(("size", "stride"), [(4, 2), (16, 8), (32, 16), (64, 32), (63, 32)])
def test_bilinear_kernels(size: int, stride: int) -> None:
    net = deconvolution(size, stride)
    interpolate(net)
    weight = net.layer("up").weight.detach()
    for i, j in np.ndindex(3, 3):
        expected = upsample_filt(size) if i == j else np.zeros((size, size))
        np.testing.assert_allclose(weight[i, j], expected, rtol=FLOAT32, atol=0)
    with torch.inference_mode():
        top = net(torch.ones(1, 3, 6, 6))
    inside = top[:, :, stride : 5 * stride, stride : 5 * stride]
    torch.testing.assert_close(inside, torch.ones_like(inside))
    assert top[0, 0, 0, 0] < 0.5  # the border fades, which the padding and the crop keep out of the image


def test_interpolation_channel_by_channel() -> None:
    """group = channels: each channel's only kernel is the bilinear one."""
    net = deconvolution(4, 2, group=3)
    interpolate(net)
    np.testing.assert_allclose(net.layer("up").weight.detach()[:, 0], np.stack([upsample_filt(4)] * 3))


def test_deconvolutions_that_cannot_interpolate() -> None:
    with pytest.raises(ValueError, match=r"up: a deconvolution of \(3, 5, 4, 4\) cannot interpolate"):
        interpolate(deconvolution(4, 2, num_output=5))
    with pytest.raises(ValueError, match=r"\(3, 3, 4, 6\) cannot interpolate"):
        interpolate(deconvolution(4, 2, kernel_size=(4, 6)))


def test_every_deconvolution_of_a_built_net_interpolates() -> None:
    net = reference.build("voc-fcn8s", width=WIDTH)
    for layer in net.spec.layers:
        if isinstance(layer, Deconvolution):
            weight = net.layer(layer.name).weight.detach()
            assert weight.sum() == pytest.approx(21 * layer.stride[0] ** 2, rel=FLOAT32)


# --- new classes --------------------------------------------------------------------------------------------


def test_expand_score() -> None:
    """The first classes keep their scores; the others stay as they are."""
    old = reference.build("voc-fcn32s", width=WIDTH, classes=5)
    new = reference.build("voc-fcn32s", width=WIDTH, classes=8)
    weights = {"score_fr.weight": noise(5, 256, 1, 1), "score_fr.bias": noise(5, seed=1)}
    old.load_state_dict(weights, strict=False)
    expand_score(new, "score_fr", old.state_dict())
    x = noise(1, 256, 3, 4)
    with torch.inference_mode():
        top = new.layer("score_fr")(x)
        close(top[:, :5], old.layer("score_fr")(x))
        assert not top[:, 5:].any()
    assert new.layer("score_fr").weight.requires_grad


def test_scores_of_more_classes_do_not_fit() -> None:
    old, new = randomized("voc-fcn32s"), reference.build("voc-fcn32s", width=WIDTH, classes=8)
    with pytest.raises(ValueError, match=r"scores of \(21, 256, 1, 1\) do not fit into the \(8, 256, 1, 1\) of voc-"):
        expand_score(new, "score_fr", old.state_dict())
    assert not new.layer("score_fr").weight.any()
