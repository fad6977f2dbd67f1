"""What was proven on the way from training to deployment, and what was not?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adjcompress.errors import shortened
from adjcompress.report.deployed import Difference, OnnxFile, Package, Unblocked
from adjcompress.report.gather import RunFacts
from adjcompress.report.words import counted, percent, points, significant


@dataclass(frozen=True)
class Check:
    """A line of the checklist. "open": the step was not taken, or what it measured was not kept."""

    state: Literal["passed", "failed", "open"]
    title: str
    rule: str
    found: str
    unblocked: tuple[Unblocked, ...] = ()


def checks(run: RunFacts) -> list[Check]:
    """Every certificate of a run with its rule and its figures, and an open line for each step without one."""
    packages, files = run.deployed.packages, run.deployed.files
    found = [_slice(package) for package in packages] or [
        Check("open", "Slice", "", "No network was extracted yet: adjcompress extract.")
    ]
    found += [_export(file) for file in files] or [
        Check("open", "Export", "", "No network was exported yet: adjcompress export model.onnx.")
    ]
    return [*found, *(_int8(file) for file in files if file.int8 is not None)]


def _slice(package: Package) -> Check:
    title = f"Slice: {package.name or 'a network'} in {package.path}"
    rule = "Its logits must equal those of the network in training, to the last bit."
    difference = package.difference
    if difference is None or difference.max_difference is None:
        return Check("open", title, rule, "Its certificate was not kept.")
    found = f"Largest difference {significant(difference.max_difference, 2)}{_on_images(difference)}."
    if (moved := package.reestimated) is not None and moved.relative is not None:
        found += (
            f" Then its batch norms were measured anew, which moved a logit by at most {significant(moved.relative, 2)} of the "
            f"largest{_on_images(moved)}."
        )
    return Check("passed" if difference.max_difference == 0 else "failed", title, rule, found)


def _export(file: OnnxFile) -> Check:
    precision = "before quantisation" if file.int8 else file.kind
    title = f"Export: {file.name or 'a network'}, {precision}, in {file.path}"
    difference, tolerance = file.difference, file.tolerance
    if difference is None or difference.relative is None or tolerance is None:
        return Check("open", title, "", "Its certificate was not kept.", file.unblocked)
    rule = f"A logit may differ from torch's by at most {tolerance:g} of the largest logit."
    found = f"Largest difference {significant(difference.relative, 2)} of the largest logit"
    found += f"{_on_images(difference, 'random image' if file.untrained else 'validation image')}."
    return Check("passed" if difference.relative <= tolerance else "failed", title, rule, found, file.unblocked)


def _int8(file: OnnxFile) -> Check:
    title = f"int8: {file.name or 'a network'} in {file.path}"
    int8 = file.int8
    assert int8 is not None
    if int8.drop_points is None or int8.max_drop_points is None:
        return Check("open", title, "", "Its certificate was not kept.")
    rule = f"Accuracy on validation images may drop by at most {int8.max_drop_points:.2f} points."
    sentences = [f"{percent(int8.float_accuracy)} in float, {percent(int8.accuracy)} in int8: {points(-int8.drop_points)}"]
    if int8.validation_images is not None:
        sentences[0] += f" on {counted(int8.validation_images, 'validation image')}"
    if int8.difference is not None and int8.difference.agreement is not None:
        sentences.append(f"top-1 agrees on {percent(int8.difference.agreement)}")
    if int8.calibration_images is not None:
        sentences.append(f"calibrated on {counted(int8.calibration_images, 'training image')}")
    if int8.float_layers:
        sentences.append(f"in float: {shortened([layer.name for layer in int8.float_layers], 6)}")
    found = "; ".join(sentences) + "."
    return Check("passed" if int8.drop_points <= int8.max_drop_points else "failed", title, rule, found)


def _on_images(difference: Difference, kind: str = "validation image") -> str:
    text = f" on {counted(difference.images, kind)}" if difference.images is not None else ""
    return text + (f"; top-1 agrees on {percent(difference.agreement)}" if difference.agreement is not None else "")
