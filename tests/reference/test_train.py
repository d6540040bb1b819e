"""Training stages, their commands and their checkpoints: what a run leaves behind, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fcn.cli import BadInput
from fcn.files import PARTIAL
from fcn.images import preprocess, voc_palette, write_image, write_label
from reference import (
    CaffeSGD,
    build,
    checkpoint,
    evaluate,
    infer,
    load_caffemodel,
    save_caffemodel,
    save_solverstate,
    train,
)
from reference.data import INPUT, LABEL, AuthorsOrder, Dataset, Sample, open_dataset
from reference.engine import Passes, describe, train_stage, with_iterations
from reference.engine import evaluate as score_net
from reference.pretrained import MEAN, layer_names
from reference.progress import finished, read_table
from reference.recipes import RECIPES, Recipe, Solver, stages
from reference.surgery import transplant

CPU = torch.device("cpu")
TINY = {"classes": 3, "width": 1 / 16}


class Squares(Dataset):
    """Four 40x56 images of a bright square on dark ground, in memory; `broken` fails once, as a bad file would."""

    name = "squares"
    classes = ("ground", "square", "never")
    palette = voc_palette()[:3]
    mean = (100.0, 110.0, 120.0)

    def __init__(self, broken_at: int | None = None) -> None:
        self.reads, self.broken_at = 0, broken_at

    def __len__(self) -> int:
        return 4

    def origin(self, index: int, name: str = LABEL) -> str:
        return f"square {index}"

    def read(self, index: int) -> Sample:
        self.reads += 1
        if self.reads == self.broken_at:
            raise BadInput("square.jpg: broken image; fetch it again")
        label = np.zeros((40, 56), np.uint8)
        label[8 : 20 + index, 10:30] = 1
        label[0, :] = 255
        image = np.where(label[..., None] == 1, 200, 40).astype(np.uint8).repeat(3, 2)
        return Sample(str(index), {INPUT: image}, {LABEL: label})


def recipe(**changes) -> Recipe:
    base = Recipe(
        name="tiny",
        net="voc-fcn16s",
        options=TINY,
        data="squares",
        train_split="train",
        val_split="val",
        solver=Solver(1e-9),
        iterations=8,
        evaluate_every=4,
        start="",
    )
    return replace(base, **changes)


def narrow(seed: int = 0):
    """A narrow FCN-16s with a random trunk; its scores start at zero, as the paper's do."""
    torch.manual_seed(seed)
    net = build("voc-fcn16s", **TINY)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and name.endswith("weight") and not name.startswith("score"):
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    return net


def stage(folder: Path, data: Dataset | None = None, **changes):
    seed, net, begin = changes.pop("seed", 1337), changes.pop("net", None) or narrow(), changes.pop("begin", None)
    return train_stage(
        recipe(**changes),
        net,
        data or Squares(),
        Squares(),
        folder,
        seed=seed,
        device=CPU,
        workers=0,
        start="x",
        begin=begin,
    )


def test_passes_follow_the_authors_order():
    data = Squares()
    passes = Passes(data, batch=2, passes=3, seed=1337)
    order = iter(AuthorsOrder(4, 1337))
    for index in range(3):
        pass_ = passes[index]
        samples = [data[next(order)] for _ in range(2)]
        assert set(pass_) == {INPUT, LABEL}
        assert np.array_equal(pass_[INPUT], preprocess([s.image for s in samples], data.mean))
        assert np.array_equal(pass_[LABEL][:, 0], [s.label for s in samples])


def test_a_stage_learns_and_leaves_its_files(tmp_path):
    result = stage(tmp_path, iterations=40, evaluate_every=20)
    rows = read_table(tmp_path / "log.csv")
    assert [row["iteration"] for row in rows] == [20, 40]
    assert rows[1]["loss_per_pixel"] < rows[0]["loss_per_pixel"] < np.log(3)
    assert [row["iteration"] for row in read_table(tmp_path / "scores.csv")] == [20, 40]
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == result["metrics"]
    saved = checkpoint.load(tmp_path / "weights.safetensors")
    assert saved.about.iteration == 40 and saved.about.classes == Squares.classes and not saved.history
    assert saved.net.spec == build("voc-fcn16s", **TINY).spec
    assert not (tmp_path / "snapshot.safetensors").exists()
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert finished(tmp_path)


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A stage that nothing interrupted."""
    folder = tmp_path_factory.mktemp("straight")
    stage(folder)
    return folder


@pytest.fixture
def cut(tmp_path) -> Path:
    """The same stage, cut off in iteration 7; its snapshot is of 4."""
    with pytest.raises(BadInput, match="broken image"):
        stage(tmp_path, Squares(broken_at=7))
    assert (tmp_path / "snapshot.safetensors").exists() and not (tmp_path / "weights.safetensors").exists()
    return tmp_path


def assert_goes_on(cut: Path, straight: Path) -> None:
    stage(cut)
    for name in ("weights.safetensors", "scores.csv", "log.csv"):
        assert (cut / name).read_bytes() == (straight / name).read_bytes(), name
    assert not (cut / "snapshot.safetensors").exists()


def test_an_interrupted_stage_goes_on_bit_for_bit(cut, straight):
    assert_goes_on(cut, straight)
    curves = EventAccumulator(str(cut / "tensorboard"))
    curves.Reload()
    for tag, name, column in (("train", "log.csv", "loss"), ("val", "scores.csv", "mean_iu")):
        shown = [(event.step, event.value) for event in curves.Scalars(f"{tag}/{column}")]
        assert shown == [(row["iteration"], np.float32(row[column])) for row in read_table(cut / name)]


def caffes_snapshot(cut: Path, folder: Path) -> tuple[Path, Path]:
    """The snapshot of a run cut off, as Caffe would have written it: (solverstate, caffemodel)."""
    saved = checkpoint.load(cut / "snapshot.safetensors")
    solver = CaffeSGD(saved.net, 1e-9)
    solver.load_state_dict(saved.history)
    state, weights = (folder / f"train_iter_4.{kind}" for kind in ("solverstate", "caffemodel"))
    save_caffemodel(saved.net, weights)
    save_solverstate(solver, state, f"snapshot/{weights.name}")
    return state, weights


def test_a_run_goes_on_from_caffes_snapshot_bit_for_bit(cut, straight, tmp_path):
    """History, iteration, rate, images and dropout: all as if it had never been elsewhere."""
    state, weights = caffes_snapshot(cut, tmp_path)
    net = build("voc-fcn16s", **TINY)
    assert not load_caffemodel(net, weights).missing
    begin, folder = partial(train.go_on, state, weights, recipe()), tmp_path / "caffes"
    with pytest.raises(BadInput, match="broken image"):  # in iteration 6: its own snapshot, of 4, counts from then on
        stage(folder, Squares(broken_at=2), net=net, begin=begin)
    stage(folder, begin=begin)
    for name in ("weights.safetensors", "scores.csv"):
        assert (folder / name).read_bytes() == (straight / name).read_bytes(), name
    assert read_table(folder / "log.csv") == read_table(straight / "log.csv")[1:]


def test_snapshots_of_caffe_that_do_not_fit_are_refused(cut, tmp_path):
    state, weights = caffes_snapshot(cut, tmp_path)
    for other, words in (
        ({"begin": partial(train.go_on, state, tmp_path / "other.caffemodel", recipe())}, "with train_iter_4.caffem"),
        (
            {"begin": partial(train.go_on, state, weights, recipe(iterations=4)), "iterations": 4},
            "iteration 4, the end",
        ),
        (
            {"begin": partial(train.go_on, state, weights, recipe()), "net": build("voc-fcn8s", **TINY)},
            "blobs of histor",
        ),
    ):
        with pytest.raises(BadInput, match=rf"train_iter_4\.solverstate: .*{words}"):
            stage(tmp_path / "new", **other)
        assert not list((tmp_path / "new").glob("[a-z]*"))


def test_tables_are_brought_back_to_the_snapshot(cut, straight):
    (cut / "log.csv").write_bytes((cut / "log.csv").read_bytes()[:-9])
    (cut / "scores.csv").write_text("iteration,mean_iu\n4,0.1\n5,0.2\n6,0")
    with pytest.raises(BadInput, match="broken image"):  # in iteration 6
        stage(cut, Squares(broken_at=2))
    for name in ("log.csv", "scores.csv"):
        assert [row["iteration"] for row in read_table(cut / name)] == [4]
    assert_goes_on(cut, straight)


def test_damaged_snapshots_are_refused_and_kept(cut, straight):
    """One line, and nothing is lost: with the cause removed the run goes on."""
    path = cut / "snapshot.safetensors"
    whole = path.read_bytes()
    draw = np.random.default_rng(1)
    flipped = []
    for place in (0, 8, 100, 5000, len(whole) - 1, *draw.integers(0, len(whole), 12)):
        flipped.append(bytearray(whole))
        flipped[-1][place] ^= 1 << draw.integers(8)
    cuts = [whole[:size] for size in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    for damaged in (*cuts, bytes(len(whole)), *flipped):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"snapshot\.safetensors") as problem:
            stage(cut)
        assert "\n" not in str(problem.value) and path.read_bytes() == damaged
    path.write_bytes(whole)
    assert_goes_on(cut, straight)


def test_damaged_settings_are_refused_and_the_snapshot_knows_them(cut, straight):
    path = cut / "run.json"
    for damaged in (b"", path.read_bytes()[:50], b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"run\.json.*remove it, and give the command that began this run"):
            stage(cut)
    path.unlink()
    with pytest.raises(BadInput, match="another seed"):
        stage(cut, seed=5)
    assert_goes_on(cut, straight)
    path.unlink()
    with pytest.raises(BadInput, match=r"no run\.json that says whose"):
        stage(cut)


def test_a_snapshot_without_a_run_is_refused(cut, straight):
    """Weights in a snapshot's place."""
    (cut / "snapshot.safetensors").write_bytes((straight / "weights.safetensors").read_bytes())
    with pytest.raises(BadInput, match="no snapshot of this run"):
        stage(cut)


def test_a_killed_writer_leaves_nothing_for_good(tmp_path):
    left = tmp_path / f"{PARTIAL}snapshot-x"
    left.mkdir()
    (left / "snapshot.safetensors").write_bytes(b"half")
    stage(tmp_path, iterations=1)
    assert not list(tmp_path.glob(f"{PARTIAL}*"))


def test_iter_size_sums_passes_and_every_one_counts(tmp_path):
    stage(tmp_path / "one", iterations=2)
    stage(tmp_path / "two", iterations=2, solver=Solver(1e-9, iter_size=2))
    one, two = (checkpoint.load(tmp_path / n / "weights.safetensors").net.state_dict() for n in ("one", "two"))
    assert not torch.equal(one["score_fr.weight"], two["score_fr.weight"])


def test_a_loss_that_is_no_number_stops_the_run(tmp_path):
    with pytest.raises(BadInput, match="lower base_lr"):
        stage(tmp_path, solver=Solver(1e3), iterations=20)
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_folder_holds_one_run(tmp_path):
    stage(tmp_path, iterations=1)
    with pytest.raises(BadInput, match="another seed"):
        stage(tmp_path, iterations=1, seed=5)


def test_stages_lead_back_to_the_classifier():
    names = [r.name for r in stages("shapes-fcn8s")]
    assert names == ["shapes-vgg16", "shapes-fcn32s", "shapes-fcn16s", "shapes-fcn8s"]
    assert [r.name for r in stages("voc-fcn8s")] == ["voc-fcn32s", "voc-fcn16s", "voc-fcn8s"]
    assert [r.name for r in stages("voc-fcn8s-atonce")] == ["voc-fcn8s-atonce"]


def test_a_stretched_recipe_stretches_the_steps_of_its_rate():
    shorter = with_iterations(RECIPES["shapes-vgg16"], 2500)
    assert (shorter.iterations, shorter.solver.max_iter) == (2500, 3500)
    shorter = with_iterations(RECIPES["shapes-fcn32s-control"], 300)
    assert (shorter.iterations, shorter.solver.stepvalue) == (300, (100, 200))
    assert with_iterations(RECIPES["voc-fcn8s"], 7).solver == RECIPES["voc-fcn8s"].solver
    assert with_iterations(RECIPES["voc-fcn8s"], None) == RECIPES["voc-fcn8s"]


def test_the_committed_classifier_starts_the_shapes_stages():
    path = Path(train.__file__).parent / "recipes" / RECIPES["shapes-vgg16"].committed
    assert path.stat().st_size <= 3_000_000
    saved = checkpoint.load(path)
    net = build("voc-fcn32s", **RECIPES["shapes-fcn32s"].options)
    report = transplant(net, saved.net)
    assert report.coerced == ["fc6.weight", "fc7.weight"] and report.dropped == ["fc8.weight", "fc8.bias"]
    assert report.missing == ["score_fr.weight", "score_fr.bias", "upscore.weight"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A narrow net for `shapes`, saved as train.py does."""
    from reference.data.shapes import Shapes

    path = tmp_path_factory.mktemp("trained") / "weights.safetensors"
    net = build("voc-fcn32s", classes=12, width=1 / 16)
    checkpoint.save(path, net, describe(RECIPES["shapes-fcn32s"], Shapes("val"), 7, {"seed": 1}))
    return path


def test_a_classifier_is_scored_as_one_pixel():
    from reference.data.shapes import Crops

    class Few(Crops):
        def __len__(self) -> int:
            return 6

    net = build("vgg16", classes=12, width=1 / 16)
    torch.nn.init.zeros_(dict(net.named_parameters())["fc8.weight"])
    found = score_net(net, Few("val", 224), CPU)
    assert found["pixel_accuracy"] == 1 / 6 and 0 <= found["live_fc7"] <= 1  # zero scores call all six class 0


def test_checkpoints_come_back_whole(tmp_path):
    net = narrow()
    about = describe(recipe(), Squares(), 3, {"seed": 1, "start": "x"})
    history = {"fc6.weight": torch.randn(4), "iteration": torch.tensor(3)}
    checkpoint.save(tmp_path / "a.safetensors", net, about, history)
    saved = checkpoint.load(tmp_path / "a.safetensors")
    assert saved.about == about and saved.net.spec == net.spec
    assert all(torch.equal(saved.net.state_dict()[key], value) for key, value in net.state_dict().items())
    assert all(torch.equal(saved.history[key], value) for key, value in history.items())


def test_broken_checkpoints_are_refused(trained, tmp_path):
    whole = trained.read_bytes()
    path = tmp_path / "cut.safetensors"
    for size in (1, 7, 8, 100, 5000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match=r"cut\.safetensors"):
            checkpoint.load(path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="empty"):
        checkpoint.load(path)
    safetensors.torch.save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(BadInput, match="not a checkpoint"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["no-such-recipe"], "no recipe 'no-such-recipe'"),
        (["shapes-fcn8s"], "train shapes-fcn16s first, or add --staged"),
        (["voc-fcn32s", "--staged"], "give the file with --weights"),
        (["camvid-fcn32s"], "--data"),
        (["camvid-fcn32s", "--data", "nowhere"], "nowhere: no such folder"),
        (["shapes-fcn32s", "--weights", "none.safetensors"], "none.safetensors: no such file"),
        (["shapes-fcn32s", "--weights", "none.caffemodel"], "none.caffemodel: no such file"),
        (["shapes-fcn32s", "--iterations", "0"], "at least 1"),
        (["shapes-fcn32s", "--workers", "-1"], "--workers -1: 0 or more"),
        (["shapes-fcn32s", "--seed", str(2**63)], "from 0 to 2^63 - 1"),
        (["shapes-fcn32s", "--device", "cuda:77"], "--device cuda:77"),
        (["shapes-fcn32s", "--solverstate", "a.solverstate"], "give it with --weights, without --staged"),
        (["shapes-fcn8s", "--staged", "--solverstate", "a", "--weights", "b"], "give it with --weights, without"),
        (["shapes-fcn32s", "--weights", "none.pth"], "none.pth: no such file"),
    ],
)
def test_train_refuses_in_one_line(arguments, complaint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert complaint in error and "\n" not in error
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_killed_loader_is_seen_wherever_torch_says_so(tmp_path, capsys, monkeypatch):
    """torch raises from a signal handler. Met in a class body, Python 3.11 raises another error from it, which a reader
    of images takes for the file's fault."""

    class Hit:
        def __set_name__(self, owner, name):
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def interrupted(*_):
        try:
            type("GifImageFile", (), {"is_animated": Hit()})
        except Exception as error:
            raise BadInput("0.png: broken image; fetch it again") from error

    monkeypatch.setattr(train, "train", interrupted)
    assert train.main(["shapes-fcn32s", "--out", str(tmp_path)]) == 2
    assert "fewer --workers" in capsys.readouterr().err


def test_weights_of_another_net_are_refused(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["shapes-fcn32s", "--weights", str(trained)]) == 2
    assert "conv1_1.weight is (4, 3, 3, 3) in the weights but (8, 3, 3, 3)" in capsys.readouterr().err


def test_evaluate_command(trained, tmp_path, capsys):
    assert evaluate.main([str(trained), "--split", "nope"]) == 2
    assert "no split 'nope'" in capsys.readouterr().err


def test_infer_command(trained, tmp_path, capsys):
    image = tmp_path / "photo.png"
    write_image(image, np.full((30, 41, 3), 90, np.uint8))
    out, laid = tmp_path / "label.png", tmp_path / "over.png"
    assert infer.main([str(image), "--weights", str(trained), "--out", str(out), "--overlay", str(laid)]) == 0
    assert out.exists() and laid.exists() and "background 100%" in capsys.readouterr().out
    image.write_bytes(image.read_bytes()[:60])
    out.unlink()
    assert infer.main([str(image), "--weights", str(trained), "--out", str(out)]) == 2
    assert "photo.png: " in capsys.readouterr().err and not out.exists()


def camvid(folder: Path, label: np.ndarray) -> None:
    """CamVid's folder with one pair of 24x32 in each split."""
    for split in ("train", "val"):
        image = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
        write_image(folder / split / "a.png", image)
        write_label(folder / f"{split}annot" / "a.png", label.astype(np.uint8), voc_palette())
        (folder / f"{split}.txt").write_text(f"{split}/a.png {split}annot/a.png\n")


def test_weights_take_their_mean_along(tmp_path, capsys, monkeypatch):
    """torchvision's, from stage to stage: each subtracts it, and says so in its checkpoint."""
    monkeypatch.chdir(tmp_path)
    camvid(tmp_path, np.zeros((24, 32)))
    shapes = build("vgg16", **RECIPES["shapes-vgg16"].options).state_dict()
    keys = {
        f"{theirs}.{blob}": f"{ours}.{blob}" for theirs, ours in layer_names().items() for blob in ("weight", "bias")
    }
    torch.save({theirs: torch.full(shapes[ours].shape, 1e-3) for theirs, ours in keys.items()}, "vgg16.pth")
    common = ["--data", ".", "--iterations", "1", "--workers", "0", "--out", "out"]
    assert train.main(["camvid-fcn32s", "--weights", "vgg16.pth", *common]) == 0
    assert "reshaped: fc6.weight from" in capsys.readouterr().out
    assert train.main(["camvid-fcn16s", *common]) == 0
    for name in ("camvid-fcn32s", "camvid-fcn16s"):
        assert checkpoint.load(f"out/{name}/weights.safetensors").about.mean == MEAN


def test_evaluation_subtracts_the_weights_mean(tmp_path):
    torch.manual_seed(0)
    camvid(tmp_path, np.arange(24 * 32).reshape(24, 32) % 11)
    net, data = build("voc-fcn8s", classes=11, width=1 / 16), open_dataset("camvid", tmp_path, "val")
    for key, blob in net.named_parameters():
        if blob.requires_grad and key.endswith("weight"):
            torch.nn.init.kaiming_normal_(blob, nonlinearity="relu")
    about, found = describe(RECIPES["camvid-fcn32s"], data, 1, {}), []
    for mean in (about.mean, (0.0, 255.0, 30.0)):
        checkpoint.save(tmp_path / "w.safetensors", net, replace(about, mean=mean))
        assert (
            evaluate.main([str(tmp_path / "w.safetensors"), "--data", str(tmp_path), "--json", str(tmp_path / "j")])
            == 0
        )
        found.append(json.loads((tmp_path / "j").read_text())["iu"])
    data.mean = mean
    ius = dict(zip(data.classes, score_net(net, data, CPU)["iu"], strict=True))
    assert found[1] == {name: None if np.isnan(iu) else iu for name, iu in ius.items()} != found[0]


def test_training_on_files_names_the_broken_one(tmp_path, capsys, monkeypatch):
    """A CamVid folder whose label holds an unknown id: the loader's complaint reaches the user as one line."""
    monkeypatch.chdir(tmp_path)
    camvid(tmp_path, np.full((24, 32), 77))
    arguments = ["camvid-fcn32s", "--data", str(tmp_path), "--iterations", "2", "--workers", "1"]
    assert train.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "trainannot" in error and "77" in error and "Traceback" not in error
