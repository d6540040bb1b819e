"""Prove that a model file computes what Caffe computes, here, on what runs it: ONNX Runtime or a TensorRT engine.

First the authors' net of that name, with the weights of records that genuine Caffe made, goes through the same export
(and build), and every top is compared with Caffe's. Then the file itself, untouched, is compared with PyTorch running
its weights. Where something diverges, the first such layer is named with the likely cause. Writes a certificate.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks import records, synthetic
from benchmarks.causes import Cause, explain, makers, sources
from benchmarks.definition import differences
from benchmarks.model import Model, exposed, open_model
from benchmarks.subject import scenes
from export.border import ELIDE, KEEP, whole_tops
from export.to_onnx import plain_about, write_model
from export.verify import HALF_TOLERANCE, TOLERANCE, difference_of, sizes, tied
from fcn.cli import BadInput, command, parser
from fcn.files import sha256, write_json
from fcn.images import preprocess
from fcn.record import record
from reference import NETS, build
from reference.data.voc import MEAN
from reference.net import Net
from runtime.ort import PROVIDERS
from runtime.segmenter import labels

DIVERGES = 1
"""The exit code where the model computes something else."""
OTHERWISE = "voc-fcn8s"
"""Whose records show what a backend computes, for a net that Caffe left no record of."""
LARGEST = (1, 375, 500)
"""Batch, height and width that a file of free size is compared at besides `export.verify.SIZES`: VOC's usual."""
Tops = Mapping[str, np.ndarray]


@command
def main(argv: Sequence[str] | None = None) -> int:
    args = parser("prove.py", __doc__ or "", "python benchmarks/prove.py voc-fcn8s.engine")
    args.add_argument("model", type=Path, metavar="MODEL", help="a .onnx file, or an engine with its sidecar")
    args.add_argument("--onnx", type=Path, metavar="FILE", help="what an engine was built from; not given: beside it")
    args.add_argument(
        "--weights", type=Path, metavar="FILE", help="what a fp16 file was exported from; not given: beside it"
    )
    args.add_argument("--provider", choices=PROVIDERS, default="auto", help="of ONNX Runtime")
    args.add_argument("--out", type=Path, metavar="FILE", help="the certificate; not given: MODEL.proof.json")
    options = args.parse_args(argv)
    out = options.out or options.model.with_name(f"{options.model.name}.proof.json")
    with tempfile.TemporaryDirectory() as folder:
        model = open_model(options.model, options.onnx, options.weights, options.provider, Path(folder))
        try:
            certificate = prove(model, Path(folder))
        finally:
            model.backend.close()
    print(report(certificate))
    write_json(out, certificate)
    print(out)
    return 0 if certificate["agrees"] else DIVERGES


def prove(model: Model, folder: Path) -> dict[str, Any]:
    """All that was compared, as the certificate holds it. `folder` takes the files that this needs."""
    name, metadata = model.net.spec.name, model.backend.metadata
    tolerance = HALF_TOLERANCE if model.half else TOLERANCE
    judge = name if recorded(name) else OTHERWISE
    unlike = differences(model.net.spec, NETS[name]()) if name in NETS else []
    compared = list(_records(model, judge, folder, tolerance))
    untouched = list(_untouched(model, tolerance))
    diverging = next((each["diverges"] for each in compared if each["diverges"]), None)
    wrong = [each for each in untouched if not each["agrees"]]
    if diverging is None and wrong:
        # Where it runs at all, its tops can be compared.
        ran = [each["input"] for each in wrong if each["fails"] is None]
        diverging = first_divergence(model, folder, tolerance, *ran[0]) if ran else _failure(wrong[0])
    agrees = not unlike and model.unchanged and all(each["agrees"] for each in (*compared, *untouched))
    return record(
        agrees=agrees,
        model=model.path.name,
        model_sha256=sha256(model.path),
        onnx_sha256=sha256(model.onnx),
        backend=model.backend.name,
        net=name,
        io=metadata.io,
        precision="fp16" if model.half else "fp32",
        border=metadata.provenance.get("border", KEEP),
        weights_sha256=metadata.weights_sha256,
        weights_unchanged=model.unchanged,
        authors_net=name in NETS,
        differences=unlike,
        judged_by=judge,
        tolerance=tolerance,
        records=compared,
        untouched=untouched,
        diverges=diverging,
    )


def recorded(name: str) -> list[str]:
    """The records of the net's forward passes, the smallest image first."""
    wanted = re.compile(rf"{re.escape(name)}-\d+x\d+")
    found = [path.stem for path in records.FOLDER.glob("*.npz") if wanted.fullmatch(path.stem)]
    return sorted(found, key=lambda stem: int(np.prod(_size(stem))))


def _size(stem: str) -> tuple[int, int]:
    height, width = map(int, stem.rpartition("-")[2].split("x"))
    return height, width


def _records(model: Model, name: str, folder: Path, tolerance: float) -> Iterator[dict[str, Any]]:
    """The authors' net with the records' weights, exported, built and run as the model is: every top against Caffe."""
    stems = recorded(name)
    seed = records.load(stems[0])[0]["seed"]
    net = build(name).eval()
    net.load_state_dict(net.state_dict() | synthetic.weights(net, seed), assign=True)
    net.requires_grad_(False)
    path = folder / f"{name}-of-the-records.onnx"
    spec, border = net.spec.deploy(), model.backend.metadata.provenance.get("border", KEEP)
    computed = whole_tops(spec) if border == ELIDE else spec.tops
    tops = [top for top in computed if top not in spec.inputs]
    about = plain_about(net, "the records' recipe", MEAN)
    write_model(net, path, about, expose=tops, precision="fp16" if model.half else "fp32", border=border)
    backend = model.open(path, [(1, 3, *_size(stem)) for stem in stems])
    try:
        for stem in tqdm(stems, "records of Caffe", leave=False, disable=None):
            x = synthetic.image(seed, "data", *_size(stem))
            yield _against_caffe(stem, net, backend.tops(x.numpy()), x, tolerance)
    finally:
        backend.close()
        path.unlink()


def _against_caffe(stem: str, net: Net, found: Tops, x: torch.Tensor, tolerance: float) -> dict[str, Any]:
    meta, caffe = records.load(stem)
    own = net.run(tuple(found), {"data": x})
    differs = {top: _sampled(top, found[top], meta, caffe) for top in found}
    (score,) = net.spec.outputs
    given, caffes = labels(found[score][0]), caffe[f"argmax/{score}"]
    same = given == caffes if given.shape == caffes.shape else np.zeros(caffes.shape, bool)
    wrong = int(np.sum(~(same | tied(own[score].numpy(), tolerance)[0])))
    first = next((top for top in _in_order(net, found) if not differs[top] <= tolerance), score if wrong else None)
    diverges = None
    if first:
        # Of an elided file the layer may read a top that the file does not hold whole.
        read = tuple(dict.fromkeys((*net.spec.inputs, *sources(makers(net, first), first))))
        due = {top: value.numpy() for top, value in net.run(read, {"data": x}).items()}
        diverges = _divergence(net, first, found, due, differs[first], stem)
    worst = max(differs, key=lambda top: differs[top])
    return {
        "record": stem,
        "record_sha256": sha256(records.FOLDER / f"{stem}.npz"),
        "tops": {top: _number(value) for top, value in differs.items()},
        "worst": _number(differs[worst]),
        "worst_top": worst,
        "pytorch_worst": max(_sampled(top, value.numpy(), meta, caffe) for top, value in own.items()),
        "pixels": caffes.size,
        "labels_that_differ": int(np.sum(~same)),
        "agrees": first is None,
        "diverges": diverges,
    }


def _sampled(top: str, found: np.ndarray, meta: Mapping[str, Any], caffe: Tops) -> float:
    """The greatest difference from Caffe's samples, relative to the greatest; infinite for another shape."""
    if list(found.shape) != meta["blobs"][top]:
        return np.inf
    difference = records.relative_to_largest(records.sample(top, torch.from_numpy(found)), caffe[f"blob/{top}"])
    return np.inf if np.isnan(difference) else difference


def _untouched(model: Model, tolerance: float) -> Iterator[dict[str, Any]]:
    """The file itself on pictures, against PyTorch with its weights."""
    metadata = model.backend.metadata
    for batch, height, width in tqdm(_sizes(model), "the file itself", leave=False, disable=None):
        pictures = scenes(batch, height, width)
        x = preprocess(pictures, metadata.mean, metadata.channel_order)
        try:
            out, fails = model.backend.run(pictures if metadata.io == "image" else x), None
        except BadInput as problem:
            out, fails = np.empty(0, np.float32), str(problem)
        own = model.net(torch.from_numpy(x)).numpy()
        scores = metadata.io == "scores"
        difference = difference_of(own, out) if scores else None
        given, due = labels(out) if scores and out.ndim == 4 else out, labels(own)
        same = given == due if given.shape == due.shape else np.zeros(due.shape, bool)
        yield {
            "input": [batch, height, width],
            "scores": None if difference is None else _number(difference),
            "equal_labels": float(np.mean(same)),
            "fails": fails,
            "agrees": bool(np.all(same | tied(own, tolerance)) and (difference is None or difference <= tolerance)),
        }


def _sizes(model: Model) -> list[tuple[int, int, int]]:
    """Batch, height and width of inputs: those the export was verified at, and VOC's; of an engine, those it takes,
    and its profiles' own."""
    usual = [*sizes(model.net)]
    usual += [LARGEST] if len({each[1:] for each in usual}) > 1 else []
    profiles = getattr(model.backend, "profiles", None)
    if profiles is None:
        return usual
    pixels = model.backend.metadata.io == "image"
    shapes = [shape for profile in profiles for shape in (profile.min, profile.opt)]
    tuned = [(n, *(rest[:2] if pixels else rest[1:])) for n, *rest in shapes]
    held = [each for each in usual if any(p.holds(_shape(each, pixels)) for p in profiles)]
    return list(dict.fromkeys((*tuned, *held)))


def _shape(size: tuple[int, int, int], pixels: bool) -> tuple[int, int, int, int]:
    batch, height, width = size
    return (batch, height, width, 3) if pixels else (batch, 3, height, width)


def first_divergence(
    model: Model, folder: Path, tolerance: float, batch: int, height: int, width: int
) -> dict[str, Any]:
    """Where the file itself leaves PyTorch, top by top, on pictures of that size."""
    metadata = model.backend.metadata
    path = folder / "exposed.onnx"
    names = exposed(model.onnx, path, model.net)
    pixels = metadata.io == "image"
    pictures = scenes(batch, height, width)
    x = preprocess(pictures, metadata.mean, metadata.channel_order)
    backend = model.open(path, [_shape((batch, height, width), pixels)])
    try:
        given = backend.tops(pictures if pixels else x)
    finally:
        backend.close()
        path.unlink()
    own = {
        top: value.numpy() for top, value in model.net.blobs(**{model.net.spec.inputs[0]: torch.from_numpy(x)}).items()
    }
    found = {top: _restored(given[top], own[top]) if model.half else given[top] for top in names}
    for top in _in_order(model.net, found):
        difference = difference_of(own[top], found[top])
        if not difference <= tolerance:
            return _divergence(model.net, top, found, own, difference, "the file itself", metadata.mean)
    says = "with every top as an output nothing diverges: what the library joins or leaves out without them matters"
    fix = "report it to the library's makers; a lower --builderOptimizationLevel may avoid it"
    return _whole("the library's optimiser", says, fix)


def _failure(untouched: Mapping[str, Any]) -> dict[str, Any]:
    size = "{} of {}x{}".format(*untouched["input"])
    return _whole(
        "it does not run", f"{untouched['fails']} (on {size})", "export it again with python export/to_onnx.py"
    )


def _whole(name: str, says: str, fix: str) -> dict[str, Any]:
    """A divergence that no layer can be named for."""
    return {"where": "the file itself", "top": None, "cause": asdict(Cause(name, says, fix))}


def _restored(lowered: np.ndarray, own: np.ndarray) -> np.ndarray:
    """A float16 graph's top, which stands lower by a power of two, as Caffe has it."""
    norms = [float(np.linalg.norm(np.nan_to_num(each, posinf=0, neginf=0))) for each in (own, lowered)]
    return lowered * 2.0 ** np.round(np.log2(norms[0] / norms[1])) if all(norms) else lowered


def _in_order(net: Net, tops: Tops) -> list[str]:
    return [top for top in net.spec.tops if top in tops]


def _divergence(
    net: Net, top: str, found: Tops, due: Tops, difference: float, where: str, mean: Sequence[float] | None = None
) -> dict[str, Any]:
    """The first top that diverges, who makes it, and why it likely does. due: what `found` lacks, as Caffe has it."""
    return {
        "where": where,
        "top": top,
        "layers": [layer.name for layer in makers(net, top)],
        "difference": _number(difference),
        "shape": list(found[top].shape),
        "cause": asdict(explain(net, top, found[top], {**due, **found, **_inputs(net, due)}, mean)),
    }


def _inputs(net: Net, due: Tops) -> Tops:
    return {name: due[name] for name in net.spec.inputs}


def _number(value: float) -> float | str:
    """As JSON takes it."""
    return float(value) if np.isfinite(value) else "another shape, or no number"


def report(certificate: Mapping[str, Any]) -> str:
    """The certificate as text."""
    lines = [
        f"{certificate['model']}: {certificate['net']}, {certificate['io']}, {certificate['precision']}, "
        f"border {certificate['border']}, on {certificate['backend']}",
        f"\n{'record of Caffe':<28}{'tops':>5}  {'worst top':<26}{'PyTorch':>9}{'labels that differ':>20}",
    ]
    for each in certificate["records"]:
        worst = f"{_shown(each['worst'])} ({each['worst_top']})"
        lines.append(
            f"{each['record']:<28}{len(each['tops']):>5}  {worst:<26}{each['pytorch_worst']:>9.1e}"
            f"{each['labels_that_differ']:>9} of {each['pixels']}"
        )
    if certificate["judged_by"] != certificate["net"]:
        lines.append(
            f"Caffe left no record of {certificate['net']}: {certificate['judged_by']} shows what this backend computes"
        )
    lines.append(
        f"\n{'the file itself, pictures':<28}{'scores':>12}{'equal labels':>16}  (against PyTorch, its weights)"
    )
    for each in certificate["untouched"]:
        size = "{} of {}x{}".format(*each["input"])
        scores = "-" if each["scores"] is None else _shown(each["scores"])
        lines.append(f"{size:<28}{scores:>12}{each['equal_labels']:>16.4%}")
    lines.append("")
    if not certificate["weights_unchanged"]:
        lines.append("DIVERGES: the weights are not those that the file was exported with; export it again")
    lines += [f"DIVERGES from the authors' net: {each}" for each in certificate["differences"]]
    if diverging := certificate["diverges"]:
        lines += [_told(diverging)]
    if certificate["agrees"]:
        lines.append(f"agrees: every difference is below {certificate['tolerance']:.0e} of the greatest value")
    return "\n".join(lines)


def _told(diverging: Mapping[str, Any]) -> str:
    cause = diverging["cause"]
    where = f"DIVERGES ({diverging['where']})"
    if diverging["top"]:
        made = f" (layers {', '.join(diverging['layers'])})" if diverging["layers"] else ""
        difference = diverging["difference"]
        by = difference if isinstance(difference, str) else f"by {difference:.1e} of its greatest value"
        where += f" first at {diverging['top']}{made}: {by}"
    return f"{where}\n  likely cause: {cause['name']}: {cause['says']}\n  fix: {cause['fix']}"


def _shown(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.1e}"


if __name__ == "__main__":
    sys.exit(main())
