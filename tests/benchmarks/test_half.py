"""What float16 does, on a narrow net that leaves its range unless it is scaled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import half
from export.verify import HALF_TOLERANCE
from fcn.images import write_image
from reference import checkpoint
from tests.export.nets import about, blobs, narrow
from tests.export.test_precision import loud


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    random = np.random.RandomState(0)
    for index in range(4):
        coarse = random.randint(0, 256, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        write_image(tmp_path / "photos" / f"{index}.png", coarse.astype(np.uint8))
    return tmp_path / "photos"


def test_what_scaling_is_for(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, out = loud(), tmp_path / "results" / "half.json"
    checkpoint.save(tmp_path / "loud.safetensors", net, about(net))
    words = [str(tmp_path / "loud.safetensors"), "--images", str(photos), "--limit", "2", "--json", str(out)]
    assert half.main(words) == 0
    found = json.loads(out.read_text())
    (of,) = found["nets"]
    assert found["images"] == {f"{tmp_path.name}/photos": 2} and of["recipe"] == "voc-fcn8s"
    for name in (half.EXPORTED, half.STORED):
        assert of["agreement"][name]["labels_equal"] > 0.98
        assert of["agreement"][name]["score_difference"] < HALF_TOLERANCE
    assert of["agreement"][half.UNSCALED] == {"labels_equal": 0, "worst_image": 0, "score_difference": None}
    assert set(of["not_finite_unscaled"]) == set(of["tops"])
    for top in of["tops"].values():
        assert top["greatest"] == top["stored"] * 2 ** top["lowered_by"]
    assert max(top["greatest"] for top in of["tops"].values()) > half.MOST
    said = capsys.readouterr().out
    assert "every top float16, not scaled" in said and "scores off by not finite" in said and "conv3_2" in said


def test_a_net_in_half_is_rounded_after_every_layer() -> None:
    net = narrow()
    made = half.in_half(net)
    data = np.random.RandomState(0).uniform(-120, 120, (1, 3, 16, 16)).astype(np.float16).astype(np.float32)
    tops = ("conv1_1", "pool1")
    found, exact = (blobs(each, tops, data=data) for each in (made, net))
    for top in tops:
        assert np.array_equal(found[top], found[top].astype(np.float16))
        assert not np.array_equal(found[top], exact[top])
        assert np.abs(found[top] - exact[top]).max() < HALF_TOLERANCE * np.abs(exact[top]).max()
    assert all(torch.equal(value, value.half().float()) for value in made.state_dict().values())


def test_images_are_taken_at_even_distances() -> None:
    paths = [Path(str(index)) for index in range(10)]
    assert [path.name for path in half.evenly(paths, 4)] == ["0", "2", "5", "7"]
    assert half.evenly(paths[:3], 4) == paths[:3]


def test_bad_input(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.safetensors")
    assert half.main([missing, "--images", str(photos), "--limit", "0"]) == 2
    assert half.main([missing, "--images", str(tmp_path / "none")]) == 2
    assert half.main([missing, "--images", str(photos)]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "--limit 0" in first and "none: no such folder" in second and "missing.safetensors: no such file" in third
