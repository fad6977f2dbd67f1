"""How does the small network leave a run?"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.cost import count
from adjcompress.data import Augmentation, ImageData, augmentation, evaluation_batch, evaluation_batches, first_pixels
from adjcompress.deploy.trail import keep
from adjcompress.errors import AdjCompressError
from adjcompress.methods import Method
from adjcompress.models import ModelSpec
from adjcompress.packages import PackageInfo, rebuild, save_package
from adjcompress.tensors import deployed_part
from adjcompress.training import Run, evaluate_split
from adjcompress.widths import Certificate, compare, reestimate_batch_norm_
from adjcompress.widths.channels import BatchNorm

_IMAGES = 64
_REESTIMATED = 5000  # images that batch norms are re-estimated on, where a network needs it


@dataclass(frozen=True)
class ExtractReport:
    """A package that was extracted: where it lies, what it says, and how far it is from the network in training.

    `full_parameters` and `full_macs` are those of the run's full network; of a run that has none, of the network that it began
    with, whole or dense: `beside` says which. `reestimated`: how far measuring the batch norms anew then moved the package's
    network; None where that was not done.
    """

    path: Path
    package: PackageInfo
    full_parameters: int
    full_macs: int
    certificate: Certificate
    reestimated: Certificate | None = None
    unfinished: str | None = None
    beside: str = "full"

    def to_json(self) -> dict[str, Any]:
        package = {
            key: value for key, value in self.package.to_json().items() if key not in ("plan", "classes", "substitution")
        }
        return {
            "path": str(self.path),
            "certificate": self.certificate.to_json(),
            "reestimated": self.reestimated.to_json() if self.reestimated else None,
            "unfinished": self.unfinished,
            "full_parameters": self.full_parameters,
            "full_macs": self.full_macs,
            "beside": self.beside,
            **package,
        }


def extract_package(
    run: Run, deployable: str | None = None, output: str | Path | None = None, reestimate: bool = False
) -> ExtractReport:
    """Cut a network out of a run and write it as a package.

    `deployable` is "alpha8", "full" and so on; by default the only small network of the run. The network that the package
    rebuilds must give the very logits of the one in training, on validation images; the certificate says so, and a
    difference is an AdjCompressError. Where the method asks for it, or `reestimate` does, its batch norms are then measured
    anew, on 5,000 training images; a second certificate says what that changed. A run that has not ended is said in the
    report; a network that has not begun to learn in it is an AdjCompressError. `output` defaults to
    small-<deployable>.safetensors (full.safetensors). The report is kept with the run, for `write_report`.
    """
    data = run.data()
    if tuple(data.classes) != run.classes:
        raise AdjCompressError(f"The classes of {data.spec.source} are no longer those that {run.folder} was trained on.")
    method = run.method()
    name = _chosen(run, method, deployable)
    spec, network = _rebuilt(run, method, name)
    if reestimate and not any(isinstance(module, BatchNorm) for module in network.modules()):
        raise AdjCompressError(f"--reestimate measures batch norms anew, and {name} has none: leave it out.")
    images = data.preprocessing.normalise(first_pixels(data, data.validation, _IMAGES))
    certificate = compare("slice", lambda batch: method.logits(batch)[name], network, [images])
    if certificate.max_difference != 0:
        raise AdjCompressError(
            f"The extracted {name} differs from the network in training by {certificate.max_difference:.3g}: "
            "the network computes something that its weights do not determine."
        )
    seen = augmentation(run.config["recipe"]["augmentation"], data)
    reestimated = _reestimated_(network, data, seen, images) if method.reestimates or reestimate else None
    score = evaluate_split({name: network}, data, data.test)[name]
    path = Path(output or ("full.safetensors" if name == "full" else f"small-{name}.safetensors"))
    info = save_package(
        network,
        path,
        model=spec,
        plan=method.plan_of(name),
        name=name,
        classes=data.classes,
        preprocessing=data.preprocessing,
        accuracy={"test": score.accuracy, **({} if score.mean_iou is None else {"test mean IoU": score.mean_iou})},
        data=data.spec,
        certificates=[certificate, *([reestimated] if reestimated else [])],
        substitution=method.substitution,
    )
    beside, whole = _compared_with(run, method)
    costs = count(whole, info.preprocessing.example())
    report = ExtractReport(path, info, costs.parameters, costs.macs, certificate, reestimated, run.unfinished(), beside)
    keep(run.folder, "extract", str(path), report.to_json())
    return report


def _chosen(run: Run, method: Method, deployable: str | None) -> str:
    """The network that is asked for; one that the run does not have, or that has not begun to learn, is an error."""
    names = list(method.deployables())
    name = _only_small(names, run) if deployable is None else deployable
    if name not in names:
        smalls = [each for each in names if each != "full"]
        alone = f" Without --alpha, {smalls[0]} is taken." if len(smalls) == 1 else ""
        raise AdjCompressError(f"{run.folder} has no network {name}; it has {', '.join(names)}.{alone}")
    if name in run.waiting(method):
        raise AdjCompressError(f"Network {name} has not begun to learn yet: {run.unfinished()}")
    return name


def _rebuilt(run: Run, method: Method, name: str) -> tuple[ModelSpec, nn.Module]:
    """What a package will say of the network, and the network that it will then give, in evaluation mode."""
    network = method.deployables()[name]
    without = getattr(network, "deployed_options", {})
    spec = replace(run.model, options={**run.model.options, **method.options_of(name), **without})
    state = deployed_part(network, network.state_dict())
    return spec, rebuild(spec, method.plan_of(name), state, method.substitution).eval()


def _compared_with(run: Run, method: Method) -> tuple[str, nn.Module]:
    """The network beside which the costs are told, by what it is called: the full one, or what the run began with."""
    networks = method.deployables()
    if "full" in networks:
        return "full", networks["full"]
    return method.compared_with or "full", run.model.build()


def _reestimated_(network: nn.Module, data: ImageData, augment: Augmentation, images: Tensor) -> Certificate:
    """Batch norms as they are when one architecture runs: in training they saw many. What that changes on `images`.

    On images drawn from all over the training split, which may be sorted by class, and augmented as in training: on CIFAR-10,
    statistics of images as they are cost 1.6 points (68.7 to 66.9 %), of augmented ones 0.1.
    """
    before = copy.deepcopy(network)
    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(0))[:_REESTIMATED]
    batches = evaluation_batches(
        data.train.subset(chosen), augment.file(data.preprocessing), evaluation_batch(data), torch.device("cpu")
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown = (augment(pixels.float(), labels)[0] for pixels, labels in batches)
        reestimate_batch_norm_(network, (data.preprocessing.normalise(pixels) for pixels in shown))
    return compare("re-estimate", before, network, [images])


def _only_small(names: list[str], run: Run) -> str:
    smalls = [name for name in names if name != "full"] or names
    if len(smalls) > 1:
        alphas = ", ".join(f"--alpha {name.removeprefix('alpha').replace('_', '.')}" for name in smalls)
        raise AdjCompressError(f"{run.folder} has several small networks: choose one of {alphas}.")
    return smalls[0]
