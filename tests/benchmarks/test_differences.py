"""Every departure does what its name says, held against what follows from arithmetic alone."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import departures as do
from benchmarks import differences, harm, synthetic
from benchmarks.differences import ROWS, SAME, depart, gradient, labels, rows, train
from fcn.images import VOID
from fcn.record import ROOT
from reference import CaffeSGD, build, surgery
from reference.data import INPUT, LABEL
from reference.data.shapes import Shapes
from reference.layers import Crop, Dropout
from reference.net import Net
from reference.pretrained import RGB_MEAN, RGB_STD
from reference.recipes import Solver
from tests.tolerances import BLOB, GRADIENT

TINY = {"classes": 12, "width": 1 / 32, "fc_width": 1 / 128, "dropout": 0.0}
PAGE = (ROOT / "docs/differences.md").read_text()
SHAPES, PHOTOGRAPHS = (
    json.loads((ROOT / f"benchmarks/results/{name}.json").read_text()) for name in ("differences", "differences-camvid")
)
MEAN = Shapes.mean


@pytest.fixture
def net() -> Net:
    net = build("voc-fcn8s", **TINY)
    surgery.transplant(net, synthetic.weights(net, "differences"))
    return net


def score(net: Net, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = net.eval()(x)
    assert isinstance(found, torch.Tensor)
    return found


# --- the solver -----------------------------------------------------------------------------------------------


def steps_of(kind: type[CaffeSGD], net: Net, steps: int, **settings: float | str) -> list[float]:
    """How far a weight goes in each step, if its gradient is always 1."""
    solver = kind(net, 1e-3, momentum=0.9, **settings)  # type: ignore[arg-type]
    weight = net.get_parameter("fc7.weight")
    with torch.no_grad():
        weight.zero_()
    far = [0.0]
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        solver.step()
        far.append(-float(weight.flatten()[0].detach()))
    return list(np.diff(far))


def test_the_momenta_agree_while_the_rate_stays(net: Net) -> None:
    assert steps_of(do.TorchSGD, net, 20) == pytest.approx(steps_of(CaffeSGD, net, 20), rel=BLOB)


def test_after_a_fall_of_the_rate_caffes_momentum_coasts_and_pytorchs_does_not(net: Net) -> None:
    """V is 1 - 0.9^20 of its limit 0.01; after a fall to a tenth Caffe goes 0.9 V + 0.0001, PyTorch a tenth of that."""
    policy = {"lr_policy": "step", "gamma": 0.1, "stepsize": 20}
    velocity = 1e-2 * (1 - 0.9**20)
    caffe, torchs = (steps_of(kind, net, 21, **policy) for kind in (CaffeSGD, do.TorchSGD))
    assert caffe[:20] == pytest.approx(torchs[:20], rel=BLOB) and caffe[19] == pytest.approx(velocity, rel=1e-4)
    assert caffe[20] == pytest.approx(0.9 * velocity + 1e-4, rel=1e-4)
    assert torchs[20] == pytest.approx(0.1 * (0.9 * velocity + 1e-3), rel=1e-4)


def test_biases_as_weights_go_half_as_far_and_weights_as_far(net: Net) -> None:
    data, solver = Shapes("train"), Solver(1e-10, weight_decay=0.0)
    begin = {key: value.clone() for key, value in net.state_dict().items()}
    ends = []
    for departure in (SAME, ROWS["biases as weights"][0]):
        made = depart(net, departure)
        assert list(train(made, departure, data, solver, 1, seed=0)) == [1]
        ends.append({key: value - begin[key] for key, value in made.state_dict().items()})
    assert torch.equal(ends[0]["score_fr.weight"], ends[1]["score_fr.weight"]) and ends[0]["score_fr.weight"].any()
    ratio = ends[1]["score_fr.bias"].norm() / ends[0]["score_fr.bias"].norm()
    assert float(ratio) == pytest.approx(0.5, abs=1e-3)  # a bias of 0.1 holds a step of 1e-5 to that


def test_the_images_of_an_epoch(net: Net) -> None:
    assert sorted(do.shuffled(700, 700, 1)) == list(range(700)) != do.shuffled(700, 700, 1)
    assert len(do.shuffled(700, 1000, 1)) == 1000
    unseen = 1 - len(set(do.authors_order(700, 700, 1337))) / 700
    assert unseen == pytest.approx((1 - 1 / 700) ** 700, abs=0.03)  # 1 / e; one deviation is 0.012


# --- the loss -------------------------------------------------------------------------------------------------


def test_the_mean_divides_the_gradient_by_the_labelled_pixels(net: Net) -> None:
    data = Shapes("train")
    whole = gradient(net, SAME, data, 1)
    mean = gradient(depart(net, ROWS["mean of the loss"][0]), SAME, data, 1)
    labelled = int((data[0].label != VOID).sum())
    assert float((mean * labelled - whole).norm() / whole.norm()) < GRADIENT


def test_void_adds_the_gradient_of_its_own_pixels(net: Net) -> None:
    class Void(Shapes):
        def read(self, index):  # type: ignore[no-untyped-def]
            sample = super().read(index)
            label = np.where(sample.label == VOID, 0, VOID).astype(np.uint8)
            return replace(sample, labels={LABEL: label})

    wrong = gradient(net, ROWS["void learned as background"][0], Shapes("train"), 1)
    right = gradient(net, SAME, Shapes("train"), 1)
    only_void = gradient(net, SAME, Void("train"), 1)
    assert float((wrong - right - only_void).norm() / wrong.norm()) < GRADIENT and only_void.any()


def test_dropping_channels_is_noisier_by_the_root_of_the_pixels() -> None:
    ones = torch.ones(1, 20_000, 4, 4)
    deviations = []
    for kind in (Dropout, do.ChannelDropout):
        torch.manual_seed(0)
        sums = kind(name="drop6").forward({}, ones, training=True).sum((2, 3))
        assert float(sums.mean()) == pytest.approx(16, rel=0.02)
        deviations.append(float(sums.std()))
    assert deviations[1] / deviations[0] == pytest.approx(math.sqrt(16), rel=0.03)
    assert torch.equal(do.ChannelDropout(name="drop6").forward({}, ones), ones)


# --- the image ------------------------------------------------------------------------------------------------


def test_rgb_is_undone_by_swapping_the_kernels_of_conv1_1(net: Net) -> None:
    x = synthetic.image("differences", INPUT, 40, 56)
    expected = score(net, x)
    swapped = do.rgb({INPUT: x}, MEAN)[INPUT]
    found = score(net, swapped)
    assert float((found - expected).abs().max()) > 0.01 * float(expected.abs().max())
    weight = net.get_parameter("conv1_1.weight")
    with torch.no_grad():
        weight.copy_(weight.flip(1))
    assert float((score(net, swapped) - expected).abs().max()) < BLOB * float(expected.abs().max())


def test_torchvisions_normalisation_of_its_own_mean_is_zero() -> None:
    def given(rgb: torch.Tensor) -> torch.Tensor:
        bgr = 255 * rgb.flip(0).view(1, 3, 1, 1) - torch.tensor(MEAN).view(1, 3, 1, 1)
        return do.torchvision({INPUT: bgr}, MEAN)[INPUT]

    mean, deviation = torch.tensor(RGB_MEAN), torch.tensor(RGB_STD)
    assert float(given(mean).abs().max()) < 1e-5 and float((given(mean + deviation) - 1).abs().max()) < 1e-5
    assert torch.equal(do.uncentred({INPUT: torch.zeros(1, 3, 1, 1)}, MEAN)[INPUT].flatten(), torch.tensor(MEAN))


def test_resized_labels_stay_labels() -> None:
    label = synthetic.label("differences", LABEL, 12, 40, 56)
    given = do.squeezed({INPUT: synthetic.image("differences", INPUT, 40, 56), LABEL: label}, MEAN)
    assert given[INPUT].shape == (1, 3, do.SIDE, do.SIDE) and given[LABEL].shape == (1, 1, do.SIDE, do.SIDE)
    assert set(given[LABEL].unique().tolist()) <= set(label.unique().tolist())


# --- where the scores lie -------------------------------------------------------------------------------------


def test_resizing_maps_the_middles_of_pixels_and_align_corners_the_corners() -> None:
    ramp = (torch.arange(10.0) * 32 + 15.5).view(1, 1, 1, 10).expand(1, 1, 10, 10)  # where each of 10 scores lies
    image = torch.empty(1, 1, 320, 320)
    found = do.Resize(name="upscore").forward({}, ramp, image)[0, 0, 0]
    assert torch.allclose(found[16:-16], torch.arange(320.0)[16:-16])
    corners = do.Resize(name="upscore", align_corners=True).forward({}, ramp, image)[0, 0, 0]
    assert float(corners[0]) == 15.5 and float(corners[-1]) == 303.5  # half a score further in


@pytest.mark.parametrize("name", ["padded by 100, resized without crop", "padded by 1 (fc6 by 3), resized"])
def test_resizing_nets_give_a_score_for_every_pixel(net: Net, name: str) -> None:
    made = depart(net, ROWS[name][0])
    assert score(made, synthetic.image("differences", INPUT, 200, 213)).shape == (1, 12, 200, 213)


def test_the_central_crop_of_500_pixels_begins_at_34_instead_of_31() -> None:
    upsampled, image = torch.arange(568.0).expand(1, 1, 568, 568), torch.empty(1, 3, 500, 500)
    bottoms = {"name": "score", "bottoms": ("upscore8", "data"), "tops": ("score",), "offset": (31,)}
    assert float(Crop(**bottoms).forward({}, upsampled, image)[0, 0, 0, 0]) == 31  # type: ignore[arg-type]
    assert float(do.CentralCrop(**bottoms).forward({}, upsampled, image)[0, 0, 0, 0]) == 34  # type: ignore[arg-type]


def test_floor_pooling_leaves_scores_out_at_the_far_end_only(net: Net) -> None:
    """Of 96 pixels pool1 makes 147 either way, and pool2 74 or 73."""
    x = synthetic.image("differences", INPUT, 96, 96)
    made = depart(net, ROWS["floor pooling"][0])
    due, found = (each.eval().blobs(data=x)["pool2"].detach() for each in (depart(net, SAME), made))
    assert due.shape[2:] == (74, 74) and found.shape[2:] == (73, 73)
    assert torch.equal(due[:, :, :73, :73], found)


def test_tf32_keeps_ten_bits(net: Net) -> None:
    made = depart(net, ROWS["TF32"][0])
    assert not (made.get_parameter("fc6.weight").detach().view(torch.int32) & 0x1FFF).any()
    x = synthetic.image("differences", INPUT, 40, 56)
    expected = score(net, x)
    error = float((score(made, x) - expected).abs().max() / expected.abs().max())
    assert 1e-5 < error < 2**-11 * 20  # a factor is off by 2^-11 at most, in each of 19 layers


def test_what_is_not_transplanted_begins_as_torchs_convolutions() -> None:
    made = build("voc-fcn8s", **TINY)
    do.fresh_fc(made)
    for key, fan_in in (("fc6.weight", 16 * 49), ("fc7.weight", 32)):
        assert float(made.get_parameter(key).detach().abs().max()) == pytest.approx(1 / math.sqrt(fan_in), rel=0.05)
    do.fresh_deconvolutions(made)
    assert torch.count_nonzero(made.get_parameter("upscore8.weight")) > 12 * 16 * 16


# --- the command and the page ---------------------------------------------------------------------------------


def test_scores_are_compared_on_the_same_weights(net: Net) -> None:
    data = Shapes("test")
    samples = [data[0], data[1]]
    found = differences.scored(net, data, samples, {"nothing": SAME, "RGB order": ROWS["RGB order"][0]})
    assert found["nothing"]["changed"] == 0 and found["nothing"]["before"] == found["nothing"]["after"]
    assert found["RGB order"]["changed"] > 0
    pairs = [pair for pair in labels(net, SAME, data, samples) if pair]
    one_by_one = [differences.mean_iu([pair]) for pair in pairs]
    assert found[harm.BY_IMAGE]["after"] == pytest.approx(np.mean(one_by_one))
    assert found[harm.VOID_SCORED]["after"] != found[harm.VOID_SCORED]["before"] == differences.mean_iu(pairs)


def test_the_command_measures_and_prints(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = ("central crop", "mean of the loss", "biases as weights")
    monkeypatch.setattr(differences, "ROWS", {name: ROWS[name] for name in kept})
    for name, value in {"STEPS": 2, "GRADIENTS": 1, "DRAWS": 2}.items():
        monkeypatch.setattr(differences, name, value)
    out = tmp_path / "differences.json"
    words = [str(weights), "--iterations", "4", "--seeds", "1", "--images", "1", "--json", str(out)]
    assert differences.main(words) == 0
    found = json.loads(out.read_text())
    assert set(harm.cells(found, PHOTOGRAPHS)) == {*kept, harm.VOID_SCORED, harm.BY_IMAGE, harm.BEST}
    assert found["moved"]["biases as weights"]["length of biases"] == pytest.approx(0.5, abs=0.05)
    assert found["noise"]["channels"] > found["noise"]["elements"] > 0
    assert len(found["trained"]["faithful"]["checkpoints"]["1"]) == 4
    assert "biases as weights" in capsys.readouterr().out


def test_of_another_recipe_scores_are_compared(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "differences.json"
    assert differences.main([str(runs / "shapes-fcn32s/weights.safetensors"), "--images", "1", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert set(found["scored"]) == {*rows("anywhere"), harm.VOID_SCORED, harm.BY_IMAGE} and "trained" not in found
    assert "RGB order" in capsys.readouterr().out
    assert differences.main([str(out), "--images", "0"]) == 2


def test_the_pages_rows_are_the_committed_figures_in_their_order() -> None:
    found = harm.cells(SHAPES, PHOTOGRAPHS)
    table = [f"| {name} | {' | '.join(cells)} | " for name, cells in found.items()]
    places = [PAGE.find(row) for row in table]
    assert -1 not in places, table[places.index(-1)]
    assert places == sorted(places) and set(found) == {*ROWS, harm.VOID_SCORED, harm.BY_IMAGE, harm.BEST}


def test_the_pages_sentences_are_the_committed_figures() -> None:
    flat = " ".join(PAGE.split())
    for figures in (SHAPES, PHOTOGRAPHS):
        assert f"(mean IU {100 * figures['scored'][harm.BY_IMAGE]['before']:.1f})" in flat
    runs = SHAPES["trained"][harm.FAITHFUL]["checkpoints"].values()
    points = [100 * point["test"] for run in runs for point in run]
    assert f"between {min(points):.1f} and {max(points):.1f}" in flat
    assert f"({SHAPES['moved'][harm.OTHER_SEED]['off']:.1f} of their way)" in flat


def test_what_fcn_prove_is_said_to_name_are_its_causes() -> None:
    said = " ".join(PAGE.split()).partition("the layer and the cause (")[2].partition(")")[0].split(", ")
    causes = (ROOT / "benchmarks/causes.py").read_text()
    assert len(said) > 5 and all(f'"{name}"' in causes for name in said)
