"""What stands beside an engine, in `model.engine.json`: what built it, for what, and of which file.

The engine itself is a raw plan, so that trtexec and Triton load it too; a plan says nothing that could be read
without its own library on its own card. Reading a sidecar needs neither: every refusal here is decided first.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fcn.cli import BadInput
from fcn.files import existing, read_json
from runtime.library import MODULES, NAMES
from runtime.metadata import Metadata
from runtime.profiles import Profile, text

FORMAT = 1
REBUILD = "build it again with python runtime/build.py"


@dataclass(frozen=True)
class Sidecar:
    """The fields of the JSON file; a file may hold more (date, machine ...), which are for people to read."""

    backend: str
    """"tensorrt" or "tensorrt-rtx"; neither opens the other's engines."""
    version: str
    """The library's, such as "10.16.1.11"."""
    cuda: str | None
    """The CUDA version that the builder's driver supported; None for an engine built without a GPU."""
    driver: str | None
    gpu: str | None
    """The card that built it, such as "NVIDIA L4"; None without one (TensorRT-RTX needs none)."""
    capability: str | None
    """That card's compute capability."""
    targets: list[str]
    """Compute capabilities that a TensorRT-RTX engine was restricted to; [] for the library's own choice."""
    profiles: list[dict[str, list[int]]]
    """min, opt and max shapes of the input, a dictionary a profile."""
    precision: dict[str, int]
    """How many of the network's layers compute in which type, {"HALF": 51, "FLOAT": 2}: the ONNX file decides."""
    tf32: bool
    version_compatible: bool
    hardware_compatibility: str
    """"none", "ampere+" or "sameComputeCapability"."""
    onnx: str
    """Name of the ONNX file, without its folder."""
    onnx_sha256: str
    plan_sha256: str
    metadata: dict[str, str]
    """The ONNX file's own, as `Metadata.to_properties` has it."""
    format: int = FORMAT

    @property
    def library(self) -> str:
        """ "TensorRT 10.16.1.11"."""
        return f"{NAMES[self.backend]} {self.version}"

    def described(self) -> Metadata:
        """The ONNX file's metadata."""
        return Metadata.from_properties(self.metadata)

    def ranges(self) -> list[Profile]:
        """The profiles, in the engine's order."""
        return [Profile(**{end: tuple(profile[end]) for end in ("min", "opt", "max")}) for profile in self.profiles]

    def rebuild(self, engine: Path) -> str:
        """The command that builds the same engine here and now."""
        words = ["python", "runtime/build.py", self.onnx, "-o", str(engine)]
        for end in ("min", "opt", "max"):
            words += [f"--{end}Shapes", *(text(profile[end]) for profile in self.profiles)]
        return shlex.join([*words, *self.options()])

    def options(self) -> list[str]:
        """What else than file and profiles the build was told."""
        words = ["--backend", self.backend, *(["--tf32"] if self.tf32 else [])]
        words += ["--versionCompatible"] if self.version_compatible else []
        if self.hardware_compatibility != "none":
            words += ["--hardwareCompatibilityLevel", self.hardware_compatibility]
        return words

    def check_library(self, engine: Path, version: str) -> None:
        """Raises BadInput where the installed library, of our backend, does not run this engine."""
        if version == self.version or (self.version_compatible and _runs_later(self.version, version)):
            return
        raise BadInput(
            f"{engine}: built by {self.library}, and {version} is installed; {self.rebuild(engine)} "
            f"(or pip install {MODULES[self.backend]}=={self.version})"
        )

    def check_gpu(self, engine: Path, name: str, capability: str) -> None:
        """Raises BadInput where the engine was built for other cards than `name` of compute `capability`.

        TensorRT's plans belong to the model of card that built them, unless built for more. TensorRT-RTX's are
        finished on the card; with targets they run on those only, without them the library itself decides.
        """
        number = tuple(map(int, capability.split(".")))
        if self.backend == "tensorrt-rtx":
            fits, built = not self.targets or capability in self.targets, f"compute capability {self.targets}"
        else:
            built = f"{self.gpu}, compute capability {self.capability}, hardware compatibility "
            built += self.hardware_compatibility
            fits = {
                "none": name == self.gpu and capability == self.capability,
                "sameComputeCapability": capability == self.capability,
                "ampere+": number >= (8, 0),
            }[self.hardware_compatibility]
        if not fits:
            here = f"{name}, compute capability {capability}"
            raise BadInput(f"{engine}: built for {built}, and this is {here}; {self.rebuild(engine)}")


def beside(engine: Path) -> Path:
    """Where the sidecar of `engine` is: model.engine.json for model.engine."""
    return engine.with_name(f"{engine.name}.json")


def read(engine: Path) -> Sidecar:
    """The sidecar of `engine`. Raises BadInput where it is missing, broken, or of a newer version of this project."""
    path = beside(engine)
    values = read_json(existing(path, hint=f"{engine.name} cannot be opened without it; {REBUILD}"), hint=REBUILD)
    try:
        if type(values["format"]) is int and values["format"] > FORMAT:
            raise BadInput(f"{path}: written by a newer version of this project; update this installation")
        made = Sidecar(**{entry.name: values[entry.name] for entry in fields(Sidecar)})
        _check_types(made)
        made.ranges()
        made.described()
        made.rebuild(engine)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: not a sidecar that this project wrote ({error!r}); {REBUILD}") from error
    except BadInput as problem:
        raise problem if str(path) in str(problem) else BadInput(f"{path}: {problem}; {REBUILD}") from problem
    return made


def _check_types(made: Sidecar) -> None:
    """Raises ValueError for what JSON allows and we never write."""
    for entry in fields(Sidecar):
        if not _FITS[str(entry.type)](getattr(made, entry.name)):
            raise ValueError(f"{entry.name}: not {entry.type}")
    if made.backend not in NAMES or made.hardware_compatibility not in ("none", "ampere+", "sameComputeCapability"):
        raise ValueError(f"{made.backend} {made.hardware_compatibility}")
    if not re.fullmatch(r"\d{1,5}(\.\d{1,5}){2,3}\w{0,9}", made.version):  # 10.16.1.11, or 10.0.0b6
        raise ValueError(f"version {made.version}")
    if not made.profiles or made.format < 1:
        raise ValueError(f"{len(made.profiles)} profiles, format {made.format}")


def _all(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)  # exactly: to Python a bool is an int


# By a field's annotation, whether JSON gave a value of it.
_FITS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: type(value) is str,
    "str | None": lambda value: value is None or type(value) is str,
    "bool": lambda value: type(value) is bool,
    "int": lambda value: type(value) is int,
    "list[str]": lambda value: type(value) is list and _all(str, value),
    "dict[str, int]": lambda value: type(value) is dict and _all(int, value.values()),
    "dict[str, str]": lambda value: type(value) is dict and _all(str, value.values()),
    "list[dict[str, list[int]]]": lambda value: (
        type(value) is list
        and _all(dict, value)
        and all(_all(list, each.values()) and all(_all(int, shape) for shape in each.values()) for each in value)
    ),
}


def _runs_later(built: str, installed: str) -> bool:
    """Whether a version-compatible plan of `built` runs under `installed`: later ones, up to the next major version.

    NVIDIA's support matrix: of the steps across major versions 10 to 11 (and 8 to 10) work, and no others.
    """
    old, new = ([int(part) for part in re.findall(r"\d+", version)] for version in (built, installed))
    return new >= old and (new[0] == old[0] or (old[0], new[0]) == (10, 11))
