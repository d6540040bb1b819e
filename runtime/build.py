"""Build a TensorRT engine with dynamic shapes from an exported ONNX file.

The engine is a raw plan, which trtexec and Triton load too; ENGINE.json beside it says what it is, and ENGINE.log
what the library said. Precision is the ONNX file's: the network is strongly typed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fcn import cli
from fcn.cli import BadInput
from fcn.files import atomic, existing, sha256, writing
from fcn.record import record
from runtime import profiles, sidecar
from runtime.device import driver_version, open_device
from runtime.library import BACKENDS, Library, load
from runtime.metadata import Metadata
from runtime.ort import OrtBackend
from runtime.profiles import Profile
from runtime.progress import progress
from runtime.sidecar import Sidecar

if TYPE_CHECKING:
    import tensorrt

LEVELS = {"none": "NONE", "ampere+": "AMPERE_PLUS", "sameComputeCapability": "SAME_COMPUTE_CAPABILITY"}
POOLS = {
    "workspace": "WORKSPACE",
    "dlaSRAM": "DLA_MANAGED_SRAM",
    "dlaLocalDRAM": "DLA_LOCAL_DRAM",
    "dlaGlobalDRAM": "DLA_GLOBAL_DRAM",
    "tacticSharedMem": "TACTIC_SHARED_MEMORY",
}
UNITS = {"B": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(
        "build.py",
        "Build a TensorRT engine from an exported ONNX file. Options have trtexec's names. Precision is the\n"
        "ONNX file's. Beside ENGINE appear ENGINE.json, without which runtime/ does not open it, and ENGINE.log.",
        "python runtime/build.py voc-fcn8s.onnx --minShapes 1x3x1x1 --optShapes 1x3x375x500 --maxShapes 4x3x1024x1024",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .onnx file written by export/to_onnx.py")
    parser.add_argument("-o", "--out", type=Path, metavar="ENGINE", help="not given: MODEL with the suffix .engine")
    shapes = parser.add_argument_group("profiles", "one shape a profile, in each of the three; not given: VOC's")
    for end, what, shape in zip(("min", "opt", "max"), ("least", "tuned", "greatest"), profiles.VOC, strict=True):
        shapes.add_argument(
            f"--{end}Shapes",
            nargs="+",
            action="extend",
            default=[],
            metavar="SHAPE",
            help=f"{what} shape, such as {profiles.text(shape)}; N x H x W x 3 for a graph that takes pixels",
        )
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="auto: TensorRT if installed")
    parser.add_argument("--tf32", action="store_true", help="allow TF32, which keeps 10 bits of each float32 factor")
    parser.add_argument(
        "--builderOptimizationLevel", type=int, choices=range(6), metavar="0-5", help="5 builds longest; not given: 3"
    )
    parser.add_argument(
        "--memPoolSize",
        type=_pool,
        nargs="+",
        default=[],
        metavar="POOL:SIZE",
        help="memory that the engine may need, such as workspace:4096M",
    )
    parser.add_argument("--timingCacheFile", type=Path, metavar="FILE", help="read if it is there, and written")
    parser.add_argument("--versionCompatible", action="store_true", help="let later versions of TensorRT run it")
    parser.add_argument("--hardwareCompatibilityLevel", choices=list(LEVELS), default="none", help="other cards")
    parser.add_argument(
        "--computeCapabilities", nargs="+", default=[], metavar="X.Y", help="TensorRT-RTX only: for these cards alone"
    )
    parser.add_argument("--verbose", action="store_true", help="the log in full")
    return parser.parse_args(argv)


@cli.command
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    out = args.out or args.model.with_suffix(".engine")
    if out.suffix not in (".engine", ".plan"):
        raise BadInput(f"{out}: the file's name must end in .engine (or .plan)")
    library = load(args.backend)
    about = build(args, out, library)
    where = f" on {about.gpu}" if about.gpu else ""
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB by {library}{where}, sha256 {about.plan_sha256}")
    for profile in about.ranges():
        print(f"  {profile}, tuned for {profiles.text(profile.opt)}")


def build(args: argparse.Namespace, out: Path, library: Library) -> Sidecar:
    """Build `args.model` into `out` and its sidecar: both appear, or neither. The log is written in any case.

    Raises BadInput for a model that is none of ours or that the library cannot parse or build, for options that
    this library has not, and where TensorRT finds no driver or GPU (TensorRT-RTX needs neither to build).
    """
    _check_options(args, library)
    if folders := [str(path) for path in (out, sidecar.beside(out)) if path.is_dir()]:
        raise BadInput(f"{folders[0]}: is a folder; choose another name with -o")
    metadata = _metadata(args.model)
    if Metadata.from_properties(metadata).provenance.get("border") == "elide":
        print(f"note: the border of {args.model} is elided, which no GPU was timed with; plain: export --border keep")
    device = None if library.rtx else open_device()
    library.log.clear()
    library.log.verbose = args.verbose
    log = out.with_name(f"{out.name}.log")
    start = time.perf_counter()
    try:
        with device.current() if device else contextlib.nullcontext():
            plan, ranges, precision = _plan(args, library)
    finally:
        with atomic(log) as temporary:
            temporary.write_text(library.log.text())
    about = Sidecar(
        backend=library.backend,
        version=library.version,
        cuda=device.cuda if device else None,
        driver=driver_version() if device else None,
        gpu=device.name if device else None,
        capability=device.capability if device else None,
        targets=list(args.computeCapabilities),
        profiles=[asdict(profile) for profile in ranges],
        precision=precision,
        tf32=args.tf32,
        version_compatible=args.versionCompatible,
        hardware_compatibility=args.hardwareCompatibilityLevel,
        onnx=args.model.name,
        onnx_sha256=sha256(args.model),
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        metadata=metadata,
    )
    _write(out, plan, {**asdict(about), **record(build_seconds=round(time.perf_counter() - start, 1))})
    return about


def _check_options(args: argparse.Namespace, library: Library) -> None:
    """Raises BadInput for options of the other library, which would be ignored."""
    existing(args.model, hint="write one with python export/to_onnx.py")
    if not library.rtx and args.computeCapabilities:
        raise BadInput(f"--computeCapabilities: {library} builds for the card that it runs on; leave it out")
    foreign = {
        "--timingCacheFile": args.timingCacheFile is not None,
        "--versionCompatible": args.versionCompatible,
        "--hardwareCompatibilityLevel": args.hardwareCompatibilityLevel != "none",
    }
    if library.rtx and any(foreign.values()):
        names = ", ".join(name for name, given in foreign.items() if given)
        raise BadInput(f"{names}: {library} has no such thing, its engines are finished where they run; leave it out")


def _metadata(model: Path) -> dict[str, str]:
    """What the ONNX file says of itself, as properties. ONNX Runtime opens it: a broken file is named as such."""
    backend = OrtBackend(model, "cpu")
    backend.close()
    return backend.metadata.to_properties()


def _plan(args: argparse.Namespace, library: Library) -> tuple[Any, list[Profile], dict[str, int]]:
    """The plan as a buffer of bytes, its profiles, and how many layers compute in which type."""
    trt = library.trt
    try:
        builder: tensorrt.Builder = trt.Builder(library.log)
    except TypeError as error:  # it returns no builder, and says why in the log only
        raise BadInput(f"{library} cannot start ({library.log.reason()}): see the driver with nvidia-smi") from error
    # Since 11 there is no other kind of network and the flag does nothing; before, precision would be the builder's.
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network: tensorrt.INetworkDefinition = builder.create_network(typed)
    parser: tensorrt.OnnxParser = trt.OnnxParser(network, library.log)
    if not parser.parse_from_file(str(args.model)):
        raise BadInput(f"{args.model}: {library} cannot parse it: {_errors(parser) or library.log.reason()}")
    source: tensorrt.ITensor = network.get_input(0)
    declared = tuple(source.shape)
    ranges = profiles.from_options(args.minShapes, args.optShapes, args.maxShapes, declared)
    profiles.check(ranges, declared)
    config: tensorrt.IBuilderConfig = builder.create_builder_config()
    for each in ranges:
        profile: tensorrt.IOptimizationProfile = builder.create_optimization_profile()
        profile.set_shape(source.name, each.min, each.opt, each.max)
        if config.add_optimization_profile(profile) < 0:
            raise BadInput(f"{args.model}: {library} takes no profile {each} ({library.log.reason()})")
    cache: tensorrt.ITimingCache | None = _configure(config, args, library)
    with progress(trt) as monitor:
        config.progress_monitor = monitor
        plan: tensorrt.IHostMemory = builder.build_serialized_network(network, config)
    if monitor.cancelled:
        raise KeyboardInterrupt
    if plan is None:
        raise BadInput(f"{args.model}: {library} cannot build it: {library.log.reason()}")
    if cache is not None:
        with atomic(args.timingCacheFile) as temporary:
            known: tensorrt.ITimingCache = config.get_timing_cache()
            temporary.write_bytes(memoryview(known.serialize()))
    return memoryview(plan).cast("B"), ranges, _precision(network)


def _configure(
    config: tensorrt.IBuilderConfig, args: argparse.Namespace, library: Library
) -> tensorrt.ITimingCache | None:
    """Set the options; the timing cache, if one is used."""
    trt = library.trt
    if not args.tf32:  # Caffe's float32 is float32; the library's default is TF32
        config.clear_flag(trt.BuilderFlag.TF32)
    if args.builderOptimizationLevel is not None:
        config.builder_optimization_level = args.builderOptimizationLevel
    for pool, size in args.memPoolSize:
        config.set_memory_pool_limit(getattr(trt.MemoryPoolType, POOLS[pool]), size)
    if library.rtx:
        config.num_compute_capabilities = len(args.computeCapabilities)
        for index, wanted in enumerate(args.computeCapabilities):
            target = getattr(trt.ComputeCapability, f"SM{wanted.replace('.', '')}", None)
            if target is None or not config.set_compute_capability(target, index):
                raise BadInput(f"--computeCapabilities {wanted}: {library} does not build for it")
        return None
    if args.versionCompatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if args.hardwareCompatibilityLevel != "none":
        level = getattr(trt.HardwareCompatibilityLevel, LEVELS[args.hardwareCompatibilityLevel], None)
        if level is None:  # the first versions of 10 know fewer
            raise BadInput(f"--hardwareCompatibilityLevel {args.hardwareCompatibilityLevel}: {library} has none such")
        config.hardware_compatibility_level = level
    if args.timingCacheFile is None:
        return None
    known = args.timingCacheFile.read_bytes() if args.timingCacheFile.exists() else b""
    cache: tensorrt.ITimingCache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        raise BadInput(f"{args.timingCacheFile}: not a timing cache of {library} and this GPU; delete it")
    return cache


def _errors(parser: tensorrt.OnnxParser) -> str:
    """The parser's errors with the layers (ONNX nodes bear Caffe's names) they are about."""
    said = []
    for index in range(parser.num_errors):
        error: tensorrt.ParserError = parser.get_error(index)
        name, kind = error.node_name(), error.node_operator()
        where = f"layer {name!r} ({kind}): " if name or kind else ""
        said.append(f"{where}{error.desc()}")
    return "; ".join(said)


def _precision(network: tensorrt.INetworkDefinition) -> dict[str, int]:
    """How many layers give which type."""
    types: Counter[str] = Counter()
    for index in range(network.num_layers):
        layer: tensorrt.ILayer = network.get_layer(index)
        if layer.num_outputs:
            result: tensorrt.ITensor = layer.get_output(0)
            dtype: tensorrt.DataType = result.dtype
            types[dtype.name] += 1
    return dict(types)


def _write(out: Path, plan: Any, about: dict[str, Any]) -> None:
    """Write the plan and its sidecar, or neither. Should the power fail between, the sidecar's hash tells."""
    described = sidecar.beside(out)
    with atomic(out) as engine, atomic(described) as text:
        with writing(out):
            engine.write_bytes(plan)
        text.write_text(json.dumps(about, indent=2) + "\n")


def _pool(given: str) -> tuple[str, int]:
    """trtexec's workspace:4096 (MiB), or with a unit: workspace:4G."""
    match = re.fullmatch(r"(\w+):(\d+(?:\.\d+)?)([BKMG]?)", given)
    if not match or match[1] not in POOLS:
        raise argparse.ArgumentTypeError(f"{given!r}: write POOL:SIZE, POOL one of {', '.join(POOLS)}")
    return match[1], int(float(match[2]) * UNITS[match[3] or "M"])


if __name__ == "__main__":
    sys.exit(main())
