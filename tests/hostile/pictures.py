"""Good and hostile images and MATLAB files."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.io
from PIL import Image, PngImagePlugin

from fcn.images import voc_palette
from tests.hostile.mutate import Sample

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
IDS = np.random.default_rng(1).integers(0, 21, (13, 17), np.uint8)


def encode(pixels: np.ndarray, kind: str, mode: str | None = None, **options: Any) -> bytes:
    """An image file. mode: what the pixels are converted to first."""
    image, file = Image.fromarray(pixels), io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


# --- JPEG ---------------------------------------------------------------------------------------------------


def jpeg_samples() -> list[Sample]:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a camera"
    files = [
        encode(PIXELS, "JPEG", quality=90, exif=exif, dpi=(72, 72), comment=b"a comment"),
        encode(PIXELS, "JPEG", progressive=True, icc_profile=bytes(200)),
        encode(PIXELS, "JPEG", "L", restart_marker_blocks=1),
        encode(PIXELS, "JPEG", "CMYK", subsampling=2),
    ]
    return [Sample(file, jpeg_cuts(file)) for file in files]


def jpeg_cuts(file: bytes) -> tuple[int, ...]:
    """Where the segments begin, and their lengths, up to the scan; then its markers."""
    return tuple(at for at in range(len(file) - 1) if file[at] == 0xFF and file[at + 1] not in (0, 0xFF))


def hostile_jpeg() -> Iterator[bytes]:
    """Sizes that are no sizes, images of other formats, and programs that one of them would start."""
    # The last takes a gigabyte and a second: it is within what may be read, and tried with one file.
    sizes = ((0, 0), (0, 17), (13, 0), (65535, 65535), (65535, 1), (1, 65535), (2000, 2000), (65500, 2048))
    for index, file in enumerate(sample.content for sample in jpeg_samples()):
        start = max(file.find(b"\xff\xc0"), file.find(b"\xff\xc2"))
        for height, width in sizes if index == 0 else sizes[:-1]:
            yield file[: start + 5] + struct.pack(">HH", height, width) + file[start + 9 :]
        for components in (0, 2, 5, 255):
            yield file[: start + 9] + bytes([components]) + file[start + 10 :]
        yield file[:2] + b"\xff\xe1\x00\x20Exif\0\0II*\0\xff\xff\xff\xff" + bytes(14) + file[2:]
        yield file[:2] + b"\xff\xd8" * 50_000 + file[2:]
        yield file[:2] + b"\xff\xfe\xff\xff" + bytes(65533) + file[2:]
        yield file + bytes(10**6)
    yield from others()


def others() -> Iterator[bytes]:
    """What Pillow would open too, were it asked for everything: PostScript, for one, runs in Ghostscript."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(pwned) (w) file closefile showpage\n"
    yield script
    yield b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(script)) + bytes(20) + script
    yield b"%PDF-1.4\n1 0 obj <</Type/Catalog>> endobj"
    yield b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"
    yield b"push graphic-context\nfill 'url(https://x/\"|touch pwned\")'\npop graphic-context"
    yield b"\xd7\xcd\xc6\x9a" + bytes(300)  # a Windows metafile
    for kind in ("DDS", "ICNS", "ICO", "MSP", "PCX", "SGI", "TGA", "XBM", "BLP", "PDF"):
        pixels = np.kron(PIXELS[:8, :8], np.ones((4, 4, 1), np.uint8))
        mode = {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind)
        yield encode(pixels, kind, mode)
    for kind in ("BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000"):
        good = encode(PIXELS, kind)
        yield from (good[:at] for at in range(8, min(len(good), 100), 4))
    for size in (b"0 0", b"-1 4", b"99999999 99999999", b"100000 100000", b"9" * 400 + b" 1", b"4 4 4", b"x y"):
        yield b"P6 " + size + b" 255\n" + bytes(48)
        yield b"P5 " + size + b" 65535\n" + bytes(48)
    yield b"P3 2 2 255 " + b"9" * 10**6


# --- PNG ----------------------------------------------------------------------------------------------------


def png_samples() -> list[Sample]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 300, zip=True)
    text.add_itxt("Title", "\u00e4", "de", "Titel")
    files = [
        encode(PIXELS, "PNG", pnginfo=text, icc_profile=bytes(300), dpi=(72, 72)),
        encode(PIXELS, "PNG", "RGBA"),
        encode(PIXELS, "PNG", "P", transparency=bytes(range(256))),
        encode(PIXELS[:, :, 0].astype(np.uint16) * 256, "PNG"),
        encode(PIXELS, "PNG", "1"),
        encode(PIXELS, "PNG", save_all=True, append_images=[Image.fromarray(PIXELS[::-1])]),
    ]
    return _with_and_without_checksums(files)


def label_samples() -> list[Sample]:
    image, file = Image.fromarray(IDS), io.BytesIO()
    image.putpalette(voc_palette().tobytes())
    image.save(file, "PNG")
    return _with_and_without_checksums([file.getvalue(), encode(IDS, "PNG"), encode(IDS, "PNG", "1")])


def depth_samples() -> list[Sample]:
    return _with_and_without_checksums([encode(PIXELS[:, :, 0].astype(np.uint16) * 99 + 7, "PNG")])


def _with_and_without_checksums(files: list[bytes]) -> list[Sample]:
    return [Sample(file, png_cuts(file), wrap) for file in files for wrap in (bytes, with_checksums)]


def png_cuts(file: bytes) -> tuple[int, ...]:
    cuts, at = [8], 8
    while at + 8 <= len(file):
        length = int.from_bytes(file[at : at + 4], "big")
        cuts += [at + 8, at + 8 + length, at + 12 + length]
        at += 12 + length
    return tuple(cuts)


def with_checksums(file: bytes) -> bytes:
    """The file with the checksum that each chunk should have, so that a reader goes on to what is in it."""
    data, at = bytearray(file), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG that declares this size, whatever its data."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def hostile_png() -> Iterator[bytes]:
    """Sizes that no memory holds, bombs in every compressed chunk, and colours that do not exist."""
    rows = (b"\0" + bytes(17 * 3)) * 13
    sizes = (0, 1, 17, 9000, 11_585, 30_000, 100_000, 2**31 - 1, 2**31, 2**32 - 1)
    yield from (png(width, height, data=rows) for width in sizes for height in sizes)
    yield from (png(17, 13, depth, colour, rows) for depth in (0, 1, 2, 3, 4, 8, 16, 255) for colour in range(8))
    bomb = zlib.compress(bytes(2**25))
    for kind, start in ((b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"tEXt", b"k\0")):
        yield png(17, 13, data=rows, extra=chunk(kind, start + bomb))
        yield png(17, 13, data=rows, extra=chunk(kind, start + bomb) * 20)
        yield png(17, 13, data=rows, extra=chunk(kind, start) * 20_000)
        yield png(17, 13, data=rows, extra=chunk(kind, b""))
    yield png(17, 13, data=bytes(2**25))
    yield png(
        11_000, 11_000, 1, 0, bytes((1 + 11_000 // 8) * 11_000)
    )  # a good one: 16 KB that unpack to 121 million pixels
    yield png(17, 13, data=rows, extra=chunk(b"PLTE", bytes(3 * 300)))
    yield png(17, 13, 8, 3, bytes(18 * 13))
    yield png(17, 13, 8, 3, b"\xff" * (18 * 13), chunk(b"PLTE", bytes(3)))
    yield png(17, 13, data=rows, extra=chunk(b"IHDR", struct.pack(">IIBBBBB", 9**9, 9**9, 8, 2, 0, 0, 0)))
    for kind in (b"acTL", b"fcTL", b"fdAT", b"eXIf", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tRNS", b"\xff\xff\xff\xff"):
        yield from (png(17, 13, data=rows, extra=chunk(kind, content)) for content in (b"", b"\xff" * 8, b"\xff" * 26))
    yield png(17, 13, data=rows, extra=chunk(b"abCD", b"") * 50_000)
    yield b"\x89PNG\r\n\x1a\n"
    yield from others()


# --- MATLAB -------------------------------------------------------------------------------------------------

HEAD = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")


def element(kind: int, content: bytes, length: int | None = None) -> bytes:
    """An element; its padding is left out where it is compressed (15)."""
    size = len(content) if length is None else length
    return struct.pack("<II", kind, size) + content + (bytes(-len(content) % 8) if kind != 15 else b"")


def compressed(content: bytes) -> bytes:
    """A file of one compressed element."""
    return HEAD + element(15, zlib.compress(content))


def matrix(name: bytes, shape: tuple[int, ...], *parts: bytes, kind: int = 9) -> bytes:
    """An array element: class, dimensions, name, and what follows."""
    dims = b"".join(struct.pack("<i", n) for n in shape)
    return element(14, element(6, struct.pack("<II", kind, 0)) + element(5, dims) + element(1, name) + b"".join(parts))


def truth(segmentation: bytes) -> bytes:
    """SBD's struct GTcls with this element as its Segmentation."""
    names = element(5, struct.pack("<i", 32)) + element(1, b"Segmentation".ljust(32, b"\0"))
    return matrix(b"GTcls", (1, 1), names, segmentation, kind=2)


def mat_samples() -> list[Sample]:
    content = {"GTcls": {"Segmentation": IDS, "CategoriesPresent": np.array([[1], [2]])}}
    file = io.BytesIO()
    scipy.io.savemat(file, content)
    whole = file.getvalue()
    body = whole[128:]
    cuts = mat_cuts(body)
    return [
        Sample(whole, (0, 124, 126, *(128 + cut for cut in cuts))),
        Sample(body, cuts, compressed),
        Sample(compressed(body), (0, 124, 126, 128, 132, 136, len(compressed(body)))),
    ]


def mat_cuts(body: bytes, start: int = 0, end: int | None = None) -> tuple[int, ...]:
    """Where the elements begin, have their content, and end; within matrices too."""
    at, end, cuts = start, len(body) if end is None else end, [start]
    while at + 8 <= end:
        kind, size = struct.unpack_from("<II", body, at)
        if kind >> 16:
            after = at + 8
        else:
            after = at + 8 + size + -size % 8
            cuts += mat_cuts(body, at + 8, at + 8 + size) if kind == 14 else [at + 8]
        cuts.append(min(after, end))
        at = after
    return tuple(sorted(set(cuts)))


def hostile_mat() -> Iterator[bytes]:
    """Bombs, wrong types, and shapes that lie."""
    good = element(2, IDS.tobytes(order="F"))
    for shape in (
        (13, 17),
        (17, 13),
        (-1, 17),
        (-13, -17),
        (0, 0),
        (221,),
        (13, 17, 1),
        (2**31 - 1,) * 2,
        (2**31 - 1,) * 9,
    ):
        yield compressed(truth(matrix(b"", shape, good)))
        yield compressed(truth(matrix(b"", shape)))
    for kind in range(20):
        yield compressed(truth(matrix(b"", (13, 17), good, kind=kind)))
        yield compressed(truth(matrix(b"", (13, 17), element(kind, IDS.tobytes()))))
        yield compressed(matrix(b"GTcls", (1, 1), good, kind=kind))
        yield HEAD + element(kind, bytes(64))
    for length in (2**31, 2**32 - 1, 2**16, 3):
        yield compressed(truth(matrix(b"", (13, 17), element(2, IDS.tobytes(), length))))
        yield HEAD + element(14, bytes(64), length)
        yield HEAD + element(15, zlib.compress(bytes(64)), length)
    for number in (float("nan"), float("inf"), 1e300, -1.0, 0.5):
        yield compressed(truth(matrix(b"", (1, 2), element(9, struct.pack("<dd", number, 1)), kind=6)))
    for name in (b"GTcls", b"", b"\xff\xfe", b"GTinst", b"x" * 10**6, b"GTcls\n\x1b[2J"):
        yield compressed(matrix(name, (1, 1), kind=2))
    # 32 MiB of zeros in 32 KiB, in every place: millions of empty elements, names of no length, dimensions.
    zeros = bytes(2**25)
    for bomb in (
        zeros,
        element(14, zeros),
        matrix(b"GTcls", (1, 1), zeros, kind=2),
        element(14, element(6, zeros)),
        element(14, element(6, bytes(8)) + element(5, zeros) + element(1, b"GTcls")),
        matrix(zeros, (1, 1), kind=2),
        matrix(b"GTcls", (1, 1), element(5, struct.pack("<i", 1)), element(1, zeros), kind=2),
        matrix(b"GTcls", (1, 1), element(5, struct.pack("<i", 1)), element(1, zeros), bytes(2**24), kind=2),
        truth(matrix(b"", (2**13, 2**12), element(2, zeros))),
        truth(matrix(b"", (2**13, 2**12), element(2, zeros), kind=6)),
        truth(matrix(b"", (2**25,), element(2, zeros), kind=14)),
    ):
        yield compressed(bomb)
    yield HEAD + element(15, zlib.compress(zeros)) * 40
    yield compressed(compressed(compressed(zeros)))
    yield HEAD + element(15, zlib.compress(zeros)[:-4])
    yield HEAD + bytes(10**6)
    yield HEAD[:124] + struct.pack("<H2s", 0x0200, b"IM") + b"\x89HDF\r\n\x1a\n"
    yield HEAD[:124] + struct.pack(">H2s", 0x0100, b"MI") + bytes(64)
