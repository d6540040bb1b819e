"""The archive that the PASCAL VOC evaluation server takes: label maps of test images, whose truth it keeps.

    results/VOC2012/Segmentation/comp6_test_cls/NAME.png    palette image: 0 for background, 1 to 20, VOC's colours

in one .tgz (VOC2012 development kit, sections 5.3 and "submission of results"; the year follows the images' folder).
Competition 6 allows any training data, 5 VOC's own alone: weights from ImageNet make it 6.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from fcn.cli import BadInput
from fcn.files import atomic, existing
from fcn.images import preprocess, read_image, voc_palette
from reference.checkpoint import Checkpoint
from reference.data.dataset import list_file, read_list
from reference.data.voc import CLASSES, LISTS
from reference.engine import place

COMPETITION = "comp6_test_cls"
SUFFIXES = (".tgz", ".tar.gz")


@torch.inference_mode()
def write_archive(saved: Checkpoint, folder: Path, split: str, path: Path, device: torch.device) -> int:
    """Label every image of `split` in `folder` (VOC2011 or VOC2012), and write the archive `path`; returns how many.

    Raises BadInput for a net of other classes, another kind of archive, and images that are missing.
    """
    if saved.about.classes != CLASSES:
        raise BadInput(f"{path}: the server scores VOC's 21 classes, not those of {saved.about.dataset}")
    if not path.name.endswith(SUFFIXES):
        raise BadInput(f"{path}: the server takes a .tgz; give that suffix")
    year = folder.resolve().name.upper()
    if not year.startswith("VOC20"):
        raise BadInput(f"{folder}: the archive names the year: call the folder VOC2011 or VOC2012")
    names = read_list(list_file(folder / LISTS, split), "unpack the test images of the VOC server there")
    images = {
        name: existing(folder / "JPEGImages" / f"{name}.jpg", hint=f"{split}.txt lists it: unpack the test images")
        for name in names
    }
    net = place(saved.net, device).eval()
    with atomic(path) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for name, image in tqdm(images.items(), "labelling", unit="image", disable=None, leave=False):
            x = preprocess([read_image(image)], saved.about.mean, saved.about.channel_order)
            label = Image.fromarray(net(torch.from_numpy(x).to(device))[0].argmax(0).to(torch.uint8).cpu().numpy())
            label.putpalette(voc_palette().tobytes())
            content = io.BytesIO()
            label.save(content, format="PNG")
            entry = tarfile.TarInfo(f"results/{year}/Segmentation/{COMPETITION}/{name}.png")
            entry.size = content.tell()
            content.seek(0)
            archive.addfile(entry, content)
    return len(images)
