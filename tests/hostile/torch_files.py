"""Good and hostile .pth files: torchvision's VGG-16 in the zip format and in that of before 2020, and pickles."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from functools import cache
from zipfile import ZipFile

import torch

from reference.pretrained import layer_names
from tests.hostile.mutate import Sample

# What a pickle may be made to do: call os.system, import a module, build an object of any class.
PICKLES = (
    b"\x80\x02cos\nsystem\nX\x0b\x00\x00\x00touch pwned\x85R.",
    b"\x80\x04\x95cos\nsystem\n(S'touch pwned'\ntR.",
    b'cbuiltins\nexec\n(S\'open("pwned", "w")\'\ntR.',
    b"(S'touch pwned'\nios\nsystem\n.",
    b"\x80\x02ctorch\nload\nX\x05\x00\x00\x00a.pth\x85R.",
    b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x02tR.",
)


@cache
def written(zipped: bool) -> bytes:
    """A state dict under torchvision's names, all of it views of three numbers."""
    numbers, state = torch.ones(3), {}
    for theirs, ours in layer_names().items():
        state[f"{theirs}.weight"] = numbers.view(1, 3, 1, 1) if ours == "conv1_1" else numbers[:1].view(1, 1)
        state[f"{theirs}.bias"] = numbers[:1]
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    # The old format calls a storage by its address, which is another in every process.
    return re.sub(rb"X.\x00\x00\x00\d{12,16}(?=q)", b"X\x01\x00\x00\x000", file.getvalue(), flags=re.DOTALL)


def samples() -> list[Sample]:
    """Both formats, cut at the entries of the zip and at the pickles of the old one."""
    found = []
    for zipped, seam in ((True, b"PK"), (False, b"\x80\x02")):
        content = written(zipped)
        cuts = [at for at in range(len(content)) if content.startswith(seam, at)]
        found.append(Sample(content, (0, *cuts, len(content))))
    return found


def hostile() -> Iterator[bytes]:
    """Pickles that would execute something, alone and where a whole file has its own; tensors larger than the file."""
    old = written(False)
    for pickle in PICKLES:
        yield pickle
        yield old[: old.index(b"\x80\x02", 20)] + pickle
        yield zipped_with(pickle)
    for size in (b"J\xff\xff\xff\x7f", b"\x8a\x08" + b"\xff" * 7 + b"\x3f", b"J\xff\xff\xff\xff"):
        yield old.replace(b"K\x03N", size + b"N", 1)
        with ZipFile(io.BytesIO(written(True))) as archive:
            good = archive.read("archive/data.pkl")
        yield zipped_with(good.replace(b"K\x03t", size + b"t", 1))


def zipped_with(pickle: bytes) -> bytes:
    """The good zip, its pickle replaced."""
    file = io.BytesIO()
    with ZipFile(io.BytesIO(written(True))) as archive, ZipFile(file, "w") as new:
        for name in archive.namelist():
            new.writestr(name, pickle if name == "archive/data.pkl" else archive.read(name))
    return file.getvalue()
