"""The graph and the module that runs it: what stays alive, what is computed, names, and errors."""

from __future__ import annotations

import copy
import weakref
from collections import Counter

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import reference
from reference.builder import Builder
from reference.layers import Convolution, Deconvolution, Dropout, Eltwise, Input, Param, Pooling, ReLU, SoftmaxWithLoss
from reference.net import Net, NetSpec, layer_name, module_name
from tests.tolerances import BLOB, COMPILED

FCNS = ("voc-fcn32s", "voc-fcn16s", "voc-fcn8s", "voc-fcn8s-atonce")
SIZE = (33, 47)


def narrow(name: str, **options: object) -> Net:
    """A sixteenth of the channels, random weights."""
    torch.manual_seed(0)
    net = reference.build(name, width=1 / 16, **options)
    with torch.no_grad():
        for layer in net.spec.layers:
            if isinstance(layer, Convolution) and not isinstance(layer, Deconvolution):
                weight = net.layer(layer.name).weight
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5)
    return net.eval()


@pytest.fixture(scope="module")
def nets() -> dict[str, Net]:
    return {name: narrow(name) for name in FCNS}


def image(seed: int = 0, n: int = 1) -> Tensor:
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 50


def label() -> Tensor:
    return torch.randint(0, 21, (1, 1, *SIZE), generator=torch.Generator().manual_seed(1)).float()


# --- what is alive ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FCNS)
def test_no_activation_outlives_its_last_use(nets: dict[str, Net], name: str) -> None:
    """After each layer exactly those tops are alive that a later layer reads, or that were asked for."""
    net = copy.deepcopy(nets[name])
    layers = [layer for layer in net.spec.deploy().layers if layer.bottoms]
    last = {bottom: i for i, layer in enumerate(layers) for bottom in layer.bottoms}
    alive: dict[str, weakref.ref[Tensor]] = {}
    step = iter(range(len(layers)))

    def watch(module: nn.Module, bottoms: tuple[Tensor, ...], top: Tensor) -> None:
        i = next(step)
        alive[layers[i].tops[0]] = weakref.ref(top)
        # The layer itself still holds its bottoms here.
        expected = {t for t in alive if last.get(t, -1) >= i} | set(layers[i].tops)
        assert {t for t, reference_ in alive.items() if reference_() is not None} == expected, layers[i].name

    for layer in layers:
        net.layer(layer.name).register_forward_hook(watch)
    with torch.inference_mode():
        score = net(image())
    assert next(step, None) is None
    assert [t for t, reference_ in alive.items() if reference_() is not None] == ["score"]
    assert alive["score"]() is score


def test_rectifying_takes_no_memory(nets: dict[str, Net]) -> None:
    """An in-place ReLU writes over its convolution's top, as in Caffe, in training too."""
    net = copy.deepcopy(nets["voc-fcn8s"])
    places: dict[str, list[int]] = {}
    for layer in net.spec.layers:
        if isinstance(layer, Convolution | ReLU):
            seen = places.setdefault(layer.tops[0], [])
            net.layer(layer.name).register_forward_hook(lambda m, b, top, seen=seen: seen.append(top.data_ptr()))
    net(image())
    rectified = [layer.tops[0] for layer in net.spec.layers if isinstance(layer, ReLU)]
    assert all(len(places[top]) == 2 and places[top][0] == places[top][1] for top in rectified)


def test_only_what_is_needed_runs(nets: dict[str, Net]) -> None:
    net = copy.deepcopy(nets["voc-fcn8s"])
    ran: Counter[str] = Counter()
    for name, module in net.named_children():
        module.register_forward_hook(lambda *_, name=name: ran.update([name]))
    with torch.inference_mode():
        net.run(("score_pool4",), {"data": image()})
    assert set(ran) == {layer.name for layer in net.spec.needed(["score_pool4"])} - {"data"}
    assert "pool4" in ran and not {"conv5_1", "fc6", "score", "loss"} & set(ran)
    ran.clear()
    with torch.inference_mode():
        net(image())
    assert "loss" not in ran and set(ran.values()) == {1}


# --- blobs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FCNS)
def test_blobs_are_all_of_caffes_tops(nets: dict[str, Net], name: str) -> None:
    net = nets[name]
    with torch.inference_mode():
        blobs = net.blobs(data=image(), label=label())
        score = net(image())
    assert set(blobs) == {top for layer in net.spec.layers for top in layer.tops}
    assert torch.equal(blobs["score"], score)
    rectified = [layer.tops[0] for layer in net.spec.layers if isinstance(layer, ReLU)]
    assert len(rectified) == 15 and all(blobs[top].min() == 0 for top in rectified)
    assert {top: tuple(blob.shape) for top, blob in blobs.items()} == net.spec.shapes(
        data=(1, 3, *SIZE), label=(1, 1, *SIZE)
    )


def test_tops_that_need_a_missing_input_are_left_out(nets: dict[str, Net]) -> None:
    with torch.inference_mode():
        assert set(nets["voc-fcn32s"].spec.shapes()) - set(nets["voc-fcn32s"].blobs(data=image())) == {"label", "loss"}
        assert set(nets["voc-fcn32s"].blobs(label=label())) == {"label"}
    n = Builder("two")
    n.fuse("both", n.conv("ca", n.input("a", 1), 2, 1), n.conv("cb", n.input("b", 1), 2, 1))
    assert set(Net(n.spec()).blobs(a=torch.zeros(1, 1, 2, 2))) == {"a", "ca"}


def test_a_net_of_two_inputs_and_two_outputs() -> None:
    """As the two modalities and the two tasks: keywords in, a dict out."""
    n = Builder("two")
    both = n.fuse("both", n.conv("ca", n.input("a", 1), 2, 1), n.conv("cb", n.input("b", 1), 2, 1))
    for task in ("sem", "geo"):
        n.loss(f"loss_{task}", n.conv(f"score_{task}", both, 2, 1), n.input(task, 1))
    net = Net(n.spec())
    assert (net.spec.inputs, net.spec.labels) == (("a", "b"), ("sem", "geo"))
    x, y = torch.randn(2, 1, 1, 3, 3)
    net.layer("ca").weight.data.fill_(1)
    by_keyword, in_order = net(a=x, b=y), net(x, y)
    assert list(by_keyword) == list(in_order) == ["score_sem", "score_geo"]
    truth = {"sem": torch.zeros(1, 1, 3, 3), "geo": torch.ones(1, 1, 3, 3)}
    losses = net.run(net.spec.losses, {"a": x, "b": y} | truth)
    assert net.total_loss(a=x, b=y, **truth) == sum(losses.values())


def test_loss_weights() -> None:
    n = Builder("weighted")
    score = n.conv("score", n.input("data", 1), 2, 1)
    n.add(SoftmaxWithLoss(name="loss", bottoms=(score, n.input("label", 1)), tops=("loss",), loss_weight=0.25))
    net, inputs = Net(n.spec()), {"data": torch.randn(1, 1, 4, 4), "label": torch.zeros(1, 1, 4, 4)}
    assert net.total_loss(**inputs) == 0.25 * net.blobs(**inputs)["loss"]


def test_outputs_of_a_deploy_net(nets: dict[str, Net]) -> None:
    """Without losses: the tops that nobody reads, in-place layers aside."""
    spec = nets["voc-fcn16s"].spec.deploy()
    assert spec.outputs == ("score",) and spec.inputs == ("data",) and not spec.losses + spec.labels
    n = Builder("deploy")
    n.relu("relu", n.conv("last", n.input("data", 1), 1, 1))
    assert n.spec().outputs == ("last",)


# --- in-place layers ----------------------------------------------------------------------------------------


def in_place(*before: str) -> NetSpec:
    """An in-place ReLU behind layers that may hand their bottom's memory on."""
    n = Builder("alias")
    top = n.input("data", 2, (6, 6))
    for kind in before:
        match kind:
            case "dropout":
                top = n.add(Dropout(name="drop", bottoms=(top,), tops=("drop",)))
            case "crop":
                top = n.crop("crop", top, like="data")
            case "fuse":
                top = n.fuse("fuse", top)
            case "relu":
                top = n.relu("before", top)
            case "conv":
                top = n.conv("conv", top, 2, 1)
    n.relu("relu", top)
    return n.spec()


@pytest.mark.parametrize(
    "before", [(), ("dropout",), ("crop",), ("fuse",), ("relu",), ("conv", "relu"), ("conv", "crop")]
)
@pytest.mark.parametrize("train", [False, True])
def test_an_input_is_never_written_to(before: tuple[str, ...], train: bool) -> None:
    """Not even by an in-place layer, nor through a layer that hands its bottom on; and blobs do not alias."""
    torch.manual_seed(0)
    net = Net(in_place(*before)).train(train)
    if "conv" in before:
        nn.init.normal_(net.layer("conv").weight)
    x = torch.randn(1, 2, 6, 6)
    given = x.clone()
    with torch.inference_mode():
        blobs = net.blobs(data=x)
    assert torch.equal(x, given)
    if before[:1] not in ((), ("relu",)):
        assert torch.equal(blobs["data"], given)
    if before == ("conv", "crop"):
        assert blobs["conv"].min() < 0, "the ReLU above the crop wrote through to the convolution"


@pytest.mark.parametrize("name", FCNS)
def test_an_image_is_never_written_to(nets: dict[str, Net], name: str) -> None:
    x = image()
    nets[name].blobs(data=x, label=label())["loss"].backward()
    assert torch.equal(x, image())


def test_two_readers_of_a_top_that_is_then_rectified_in_place() -> None:
    """A layer listed before the ReLU reads the unrectified top (Caffe splits it), forward and backward."""
    n = Builder("readers")
    top = n.conv("conv", n.input("data", 1, (6, 6)), 2, 3)
    pool = n.max_pool("pool", top)
    n.relu("relu", top)
    n.fuse("sum", pool, n.max_pool("pool_relu", top))
    net = Net(n.spec())
    torch.manual_seed(0)
    nn.init.normal_(net.layer("conv").weight)
    x = torch.randn(1, 1, 6, 6)
    conv = nn.functional.conv2d(x, net.layer("conv").weight)
    expected = nn.functional.max_pool2d(conv, 2) + nn.functional.max_pool2d(conv.relu(), 2)
    (gradient,) = torch.autograd.grad(expected.sum(), net.layer("conv").weight)
    ours = net(x)
    assert torch.equal(ours, expected)
    ours.sum().backward()
    torch.testing.assert_close(net.layer("conv").weight.grad, gradient)


def test_training_through_layers_that_keep_their_output() -> None:
    """A second in-place layer must not overwrite what the first needs for its gradient."""
    n = Builder("kept")
    top = n.relu("one", n.conv("conv", n.input("data", 1, (6, 6)), 2, 3))
    n.relu("three", n.dropout("two", n.relu("again", top)))
    net = Net(n.spec())
    nn.init.normal_(net.layer("conv").weight)
    net(torch.randn(1, 1, 6, 6)).sum().backward()
    assert net.layer("conv").weight.grad is not None


# --- names --------------------------------------------------------------------------------------------------

ODD = ("conv1.1", "type", "%", "%74ype", "a/b:c d", "weight", "bias", "spec", "_plans", "loss", "run", "T_destination",
       "training", "inception_3a/5x5_reduce", "日本", ".", "layer", "__class__")  # fmt: skip


@given(st.text(min_size=1))
@example("type")
@example("conv1.1")
def test_names_are_escaped_reversibly(name: str) -> None:
    assert layer_name(module_name(name)) == name
    assert "." not in module_name(name)


@settings(max_examples=200)
@given(st.lists(st.text(alphabet="a.%25Ety", min_size=1), min_size=2, max_size=2, unique=True))
def test_no_two_names_meet(names: list[str]) -> None:
    assert module_name(names[0]) != module_name(names[1])


@pytest.mark.parametrize("name", ["conv1_1", "score_fr", "fc6", "conv1/7x7_s2", "conv1_1_bgrd"])
def test_the_authors_names_stay_as_they_are(name: str) -> None:
    assert module_name(name) == name


@pytest.mark.parametrize("name", ODD)
def test_odd_names_work(name: str) -> None:
    n = Builder("odd")
    n.relu("after", n.conv(name, n.input("data", 1), 2, 1))
    net = Net(n.spec())
    assert set(net.state_dict()) == {f"{module_name(name)}.weight", f"{module_name(name)}.bias"}
    net.layer(name).weight.data.fill_(1)
    x = torch.randn(1, 1, 2, 2)
    assert torch.equal(net(x), x.relu().expand(1, 2, 2, 2))
    assert net.to(torch.float64).train().eval().layer(name).weight.dtype == torch.float64


@pytest.mark.parametrize("name", sorted(set(dir(nn.Module())) | set(dir(Net(Builder("empty").spec())))))
def test_every_attribute_of_a_net_may_name_a_layer(name: str) -> None:
    n = Builder("odd")
    n.conv(name, n.input("data", 1), 1, 1)
    assert torch.equal(Net(n.spec())(torch.ones(1, 1, 1, 1)), torch.zeros(1, 1, 1, 1))


# --- errors -------------------------------------------------------------------------------------------------


def test_wrong_inputs(nets: dict[str, Net]) -> None:
    net = nets["voc-fcn32s"]
    with pytest.raises(ValueError, match="voc-fcn32s needs the input 'data'"):
        net()
    with pytest.raises(ValueError, match="voc-fcn32s needs the input 'label'"):
        net.total_loss(data=image())
    with pytest.raises(ValueError, match="voc-fcn32s computes no top 'upscore2'"):
        net.run(("score", "upscore2"), {"data": image()})
    with pytest.raises(ValueError, match="no input 'depth'; it has data, label"):
        net(image(), depth=image())
    with pytest.raises(ValueError, match=r"input 'data' is \(1, 4, 8, 8\), not N x 3 x H x W"):
        net(torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"input 'data' is \(3, 8, 8\), not N x 3 x H x W"):
        net(torch.zeros(3, 8, 8))
    with pytest.raises(ValueError):
        net(image(), image())
    with pytest.raises(ValueError, match="does not fit score"):
        net.total_loss(data=image(), label=torch.zeros(1, 1, 5, 5))


def test_graphs_that_are_none() -> None:
    conv = Convolution(name="conv", bottoms=("data",), tops=("conv",), num_output=1, kernel_size=(1, 1))
    with pytest.raises(ValueError, match="layer 'conv' reads 'data', which nothing made"):
        NetSpec("none", (conv,))
    data = Input(name="data", tops=("data",), shape=(1, 1, 4, 4))
    with pytest.raises(ValueError, match="two layers bear the name 'conv'"):
        NetSpec("none", (data, conv, conv))
    pool = Pooling(name="pool", bottoms=("data",), tops=("pool",), kernel_size=(2, 2), stride=(2, 2))
    fuse = Eltwise(name="fuse", bottoms=("data", "pool"), tops=("fuse",))
    with pytest.raises(ValueError, match="fuse: its bottoms differ in shape"):
        Net(NetSpec("none", (data, pool, fuse)))
    with pytest.raises(ValueError, match="no net 'fcn'; there are vgg16, voc-fcn32s"):
        reference.build("fcn")


# --- the authors' nets --------------------------------------------------------------------------------------


def trunk_keys() -> list[str]:
    convs = [f"conv{b}_{i}" for b, k in enumerate((2, 2, 3, 3, 3), start=1) for i in range(1, k + 1)]
    return [f"{name}.{blob}" for name in (*convs, "fc6", "fc7", "score_fr") for blob in ("weight", "bias")]


@pytest.mark.parametrize(("name", "more"), [
    ("voc-fcn32s", ["upscore.weight"]),
    ("voc-fcn16s", ["upscore2.weight", "score_pool4.weight", "score_pool4.bias", "upscore16.weight"]),
    ("voc-fcn8s", ["upscore2.weight", "score_pool4.weight", "score_pool4.bias", "upscore_pool4.weight",
                   "score_pool3.weight", "score_pool3.bias", "upscore8.weight"]),
    ("voc-fcn8s-atonce", ["upscore2.weight", "scale_pool4.weight", "score_pool4.weight", "score_pool4.bias",
                          "upscore_pool4.weight", "scale_pool3.weight", "score_pool3.weight", "score_pool3.bias",
                          "upscore8.weight"]),
])  # fmt: skip
def test_state_dict_keys_are_caffes(nets: dict[str, Net], name: str, more: list[str]) -> None:
    assert list(nets[name].state_dict()) == trunk_keys() + more


def test_full_size_shapes_and_number_of_parameters() -> None:
    """CVPR 2015, table 1: 134 million without the deconvolution; fc6 is 4096 x 512 x 7 x 7."""
    with torch.device("meta"):
        net = Net(reference.NETS["voc-fcn32s"]())
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["fc6.weight"] == (4096, 512, 7, 7) and shapes["fc7.weight"] == (4096, 4096, 1, 1)
    assert shapes["score_fr.weight"] == (21, 4096, 1, 1) and shapes["upscore.weight"] == (21, 21, 64, 64)
    learned = sum(value.numel() for key, value in net.state_dict().items() if not key.startswith("upscore"))
    assert round(learned / 1e6) == 134


@pytest.mark.parametrize("name", [name for name in reference.NETS if name not in ("vgg16", "voc-fcn-alexnet")])
def test_multipliers_are_the_authors(name: str) -> None:
    """Weights 1/1, biases 2/0; deconvolutions and Scale layers are frozen, and need no gradient."""
    net = reference.build(name, width=1 / 64)
    multipliers = net.multipliers()
    assert list(multipliers) == [key for key, _ in net.named_parameters()]
    for key, parameter in net.named_parameters():
        frozen = key.startswith(("upscore", "scale_"))
        assert multipliers[key].lr_mult == (0 if frozen else 2 if key.endswith("bias") else 1)
        if not frozen:
            assert multipliers[key].decay_mult == (0 if key.endswith("bias") else 1)
        assert parameter.requires_grad is not frozen


def test_alexnet_declares_no_multipliers_in_its_trunk() -> None:
    """Its biases learn at 1 and are decayed, but for score_fr's."""
    multipliers = reference.build("voc-fcn-alexnet", width=1 / 64).multipliers()
    assert multipliers.pop("score_fr.bias") == Param(2, 0) and multipliers.pop("upscore.weight").lr_mult == 0
    assert len(multipliers) == 15 and set(multipliers.values()) == {Param(1, 1)}


def test_learned_deconvolutions() -> None:
    """CVPR version: those inside the net learn at 1, the last one stays frozen."""
    multipliers = narrow("voc-fcn8s", learned=True).multipliers()
    rates = {key: param.lr_mult for key, param in multipliers.items() if key.startswith("upscore")}
    assert rates == {"upscore2.weight": 1, "upscore_pool4.weight": 1, "upscore8.weight": 0}
    assert multipliers["upscore2.weight"] == Param(1, 1)
    both = reference.build("siftflow-fcn16s", width=1 / 64, learned=True).multipliers()
    assert {key for key, param in both.items() if key.startswith("upscore") and param.lr_mult} == {
        "upscore2_sem.weight",
        "upscore2_geo.weight",
    }


def test_a_built_net_is_as_the_authors_scripts_leave_it() -> None:
    """Zeros, bilinear deconvolutions, Scale layers at their factor: the scores of any image are 0."""
    net = reference.build("voc-fcn8s-atonce", width=1 / 64)
    for key, value in net.state_dict().items():
        if key.startswith("scale"):
            assert (value == (0.01 if "pool4" in key else 0.0001)).all()
        else:
            assert bool(value.any()) is key.startswith("upscore")
    assert not net.eval()(image()).any()


@pytest.mark.parametrize("name", ["voc-fcn-alexnet", "voc-fcn-googlenet"])
def test_other_trunks_fit_any_size(name: str) -> None:
    """Down to one pixel, and at every remainder of the stride of 32."""
    spec = reference.NETS[name](width=1 / 64)
    for height in range(1, 98):
        width = 98 - height
        assert spec.shapes(data=(1, 3, height, width))["score"] == (1, 21, height, width)


def test_nets_of_two_images_and_of_two_tasks() -> None:
    color, other = torch.randn(2, 3, 9, 11), torch.randn(2, 1, 9, 11)
    early, late = (reference.build(f"nyud-fcn32s-color-{name}", width=1 / 64).eval() for name in ("d", "hha"))
    with torch.inference_mode():
        assert early(color=color, depth=other).shape == late(color=color, hha=color).shape == (2, 40, 9, 11)
        tasks = reference.build("siftflow-fcn8s", width=1 / 64, classes=7, geometric=4).eval()(color)
    assert {top: score.shape for top, score in tasks.items()} == {
        "score_sem": (2, 7, 9, 11),
        "score_geo": (2, 4, 9, 11),
    }


def test_width_and_classes() -> None:
    shapes = {k: tuple(v.shape) for k, v in reference.build("voc-fcn16s", classes=5, width=1 / 8).state_dict().items()}
    assert shapes["conv1_1.weight"] == (8, 3, 3, 3) and shapes["fc6.weight"] == (512, 64, 7, 7)
    assert shapes["score_pool4.weight"] == (5, 64, 1, 1) and shapes["upscore16.weight"] == (5, 5, 32, 32)
    thin = reference.build("voc-fcn32s", width=1 / 8, fc_width=1 / 64).state_dict()
    assert thin["fc6.weight"].shape == (64, 64, 7, 7) and thin["conv5_3.weight"].shape == (64, 64, 3, 3)


# --- a module like any other --------------------------------------------------------------------------------


def test_copies_share_nothing(nets: dict[str, Net]) -> None:
    net = nets["voc-fcn32s"]
    twin = copy.deepcopy(net)
    before = net(image())
    with torch.no_grad():
        twin.layer("score_fr").bias.add_(1)
    assert torch.equal(net(image()), before) and not torch.equal(twin(image()), before)


def test_a_batch_is_its_images(nets: dict[str, Net]) -> None:
    with torch.inference_mode():
        scores = nets["voc-fcn8s"](image(n=3))
        for i, one in enumerate(image(n=3)):
            alone = nets["voc-fcn8s"](one[None])[0]
            assert (alone - scores[i]).abs().max() <= BLOB * alone.abs().max()


def test_dropout_only_in_training(nets: dict[str, Net]) -> None:
    net = copy.deepcopy(nets["voc-fcn32s"])
    assert torch.equal(net(image()), net(image()))
    net.train()
    assert not torch.equal(net(image()), net(image()))


def test_state_dict_round_trip(nets: dict[str, Net]) -> None:
    twin = reference.build("voc-fcn8s", width=1 / 16).eval()
    twin.load_state_dict(nets["voc-fcn8s"].state_dict())
    assert torch.equal(twin(image()), nets["voc-fcn8s"](image()))


def test_the_layers_say_what_they_are(nets: dict[str, Net]) -> None:
    assert "(score): LayerModule(Crop: upscore, data -> score)" in str(nets["voc-fcn32s"])


@pytest.fixture(scope="module")
def tiny() -> Net:
    """A whole small FCN: few layers, so that compiling is short."""
    n = Builder("tiny")
    data = n.input("data", 3)
    top = n.max_pool("pool", n.relu("relu", n.conv("conv", data, 4, 3, pad=20)))
    up = n.upscore("upscore", n.conv("score_fr", n.dropout("drop", top), 2, 3), 2, kernel=4, stride=2)
    n.crop("score", up, like=data)
    net = Net(n.spec()).eval()
    reference.surgery.interpolate(net)
    torch.manual_seed(0)
    for name in ("conv", "score_fr"):
        nn.init.normal_(net.layer(name).weight)
    return net


def test_compiles(tiny: Net) -> None:
    compiled = torch.compile(tiny, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for size in ((20, 24), (31, 17)):
            x = torch.randn(1, 3, *size)
            torch.testing.assert_close(compiled(x), tiny(x), rtol=COMPILED, atol=COMPILED)


def test_exports(tiny: Net) -> None:
    """torch.export, with batch, height and width left open."""
    sizes = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(tiny, (torch.randn(2, 3, 20, 24),), dynamic_shapes=((sizes,),))
    for shape in ((2, 3, 20, 24), (1, 3, 31, 17)):
        x = torch.randn(*shape)
        torch.testing.assert_close(program.module()(x), tiny(x), rtol=COMPILED, atol=COMPILED)
