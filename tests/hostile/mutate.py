"""Damaged copies of good files: cut at the seams of their format, and mutated where its structure lies.

Everything follows from a seed, so that a case that fails today fails tomorrow.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Lengths, sizes, offsets and counts that a reader may be told.
EXTREMES = (0, 1, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62, 2**63 - 1, -1, -(2**31), -(2**63))
FLOATS = (float("nan"), float("inf"), -1e38, 1e-45)
# What may stand in a text where a number stood, or a word.
SCRAPS = (
    *(b"0", b"-1", b"1", b"7", b"65537", b"4294967295", b"9223372036854775807", b"99999999999999999999", b"1e400"),
    *(b"nan", b"inf", b"-1e-400", b"2.5", b"9" * 5000, b"0x1f", b"true", b"null", b'""', b"''", b'"\xff\xfe"'),
    *(b'"\\xff"', b'"\\ud800"', b'"\\u0000"', b"{", b"}", b"[", b"]", b"<", b">", b":", b",", b"#", b"\0", b"\x1b[2J"),
    *(b"\n", b"\r", b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"layer {" * 200, b"../../../../../../etc/passwd"),
    *(b"A" * 5000, b"\xc3\xa4", b"\xe2\x80\xae", b"%s%n", b"$(touch x)", b"__import__('os')"),
)


@dataclass(frozen=True)
class Sample:
    """A good file, or a part of one that `wrap` completes (with checksums, a header, compression) to a file."""

    content: bytes
    cuts: tuple[int, ...] = ()
    """Where the parts of the format begin and end. Text needs none: there it is the words."""
    wrap: Callable[[bytes], bytes] = bytes
    text: bool = False


def cases(samples: Sequence[Sample], count: int, seed: int) -> list[bytes]:
    """`count` different damaged files: truncations at the cuts (at most half of all), then mutations."""
    dice = random.Random(seed)
    good = {sample.wrap(sample.content) for sample in samples}
    cut = [sample.wrap(sample.content[:at]) for sample in samples for at in truncations(sample)]
    dice.shuffle(cut)
    found = dict.fromkeys(cut[: count // 2])
    for turn in range(10 * count):
        if len(found) == count:
            break
        sample = samples[turn % len(samples)]
        damage = damage_text if sample.text else damage_bytes
        content = sample.content
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            content = damage(content, sample, samples, dice)
        if (file := sample.wrap(content)) and file not in good:
            found[file] = None
    return list(found)


def truncations(sample: Sample) -> list[int]:
    """The cuts, and a byte before and after each."""
    cuts = sample.cuts or tuple(match.start() for match in re.finditer(rb"\s|[{}:,]", sample.content))
    near = {cut + step for cut in cuts for step in (-1, 0, 1)}
    return sorted(at for at in near if 0 < at < len(sample.content))


def damage_text(text: bytes, sample: Sample, samples: Sequence[Sample], dice: random.Random) -> bytes:
    """One word, number or line replaced, doubled, moved or left out."""
    words = re.findall(rb"\"[^\"\n]*\"|[-+.\w]+|\s+|.", text) or [b" "]
    told = [i for i, word in enumerate(words) if not word.isspace()] or [0]
    numbers = [i for i in told if re.fullmatch(rb"[-+.\d]+", words[i])] or told
    at = dice.choice(numbers if dice.random() < 0.4 else told)
    match dice.randrange(6):
        case 0 | 1:
            words[at] = dice.choice(SCRAPS)
        case 2:
            words[at] = words[dice.choice(told)]
        case 3:
            del words[at : at + dice.choice((1, 1, 2, 20))]
        case 4:
            words[at:at] = words[at : at + dice.choice((1, 5, 40))] * dice.choice((1, 2, 30))
        case _:
            lines = text.splitlines(keepends=True)
            dice.shuffle(lines)
            return b"".join(lines[: dice.randint(1, len(lines))]) if lines else b"\n"
    return b"".join(words)


def damage_bytes(content: bytes, sample: Sample, samples: Sequence[Sample], dice: random.Random) -> bytes:
    """Some bytes near a cut overwritten, or a part of the file left out, doubled, or put elsewhere."""
    data = bytearray(content or b"\0")
    cuts = [cut for cut in sample.cuts if cut <= len(data)] or [0]

    def place() -> int:
        at = dice.choice(cuts) + dice.randint(-4, 12) if dice.random() < 0.8 else dice.randrange(len(data))
        return min(max(at, 0), len(data) - 1)

    at = place()
    match dice.randrange(9):
        case 0:
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            data[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        case 2:
            number = dice.choice(EXTREMES)
            size, order = dice.choice((1, 2, 4, 8)), dice.choice(("little", "big"))
            data[at : at + size] = (number % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
        case 3:
            data[at : at + dice.randint(0, 2)] = varint(dice.choice(EXTREMES) % 2**64)
        case 4:
            data[at : at + 4] = struct.pack(dice.choice("<>") + "f", dice.choice(FLOATS))
        case 5:
            first, last = sorted((dice.choice(cuts), dice.choice(cuts)))
            del data[first:last]
        case 6:
            first, last = sorted((dice.choice(cuts), dice.choice(cuts)))
            data[at:at] = data[first : min(last, first + 4096)] * dice.choice((1, 2, 50))
        case 7:
            other = dice.choice(samples)
            data[dice.choice(cuts) :] = other.content[dice.choice(other.cuts or (0,)) :]
        case _:
            data[at:at] = dice.choice((dice.randbytes(dice.randint(1, 40)), bytes(4096), b"\xff" * 40))
    return bytes(data)


def varint(value: int) -> bytes:
    """protobuf's encoding of a number from 0 to 2**64 - 1."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def protobuf_cuts(data: bytes, start: int = 0, end: int | None = None, depth: int = 0) -> tuple[int, ...]:
    """Where the fields of a message, and of those within it, begin and end; nothing for bytes that are none."""
    end, at, cuts = len(data) if end is None else end, start, [start]
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        if not key >> 3 or kind not in (0, 1, 2, 5):
            return ()
        body = at
        if kind == 2:
            length, body = _varint(data, at, end)
            at = body + length
        else:
            at = _varint(data, at, end)[1] if kind == 0 else at + (8 if kind == 1 else 4)
        if at > end:
            return ()
        if kind == 2 and depth < 5 and at - body < 20_000:
            cuts += protobuf_cuts(data, body, at, depth + 1)
        cuts += [body, at]
    return tuple(sorted(set(cuts)))


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end:
        byte = data[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
    return 0, end + 1
