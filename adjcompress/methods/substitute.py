"""How is a network with structured substitutes trained? arXiv:1906.00859: weight decay by compression, attention transfer."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.cost.budget import parse_budgets
from adjcompress.errors import AdjCompressError, check_choice
from adjcompress.methods.options import MethodOptions, check_taken
from adjcompress.methods.protocol import Method, Terms, decay_groups
from adjcompress.methods.supervised import cross_entropy, tell_progress_
from adjcompress.methods.teacher import TeacherFile
from adjcompress.running import evaluating
from adjcompress.substitutes import Substitute, Substitution, apply_substitution, plan_substitution, weights_made_once
from adjcompress.substitutes.attention import attention_loss, attention_of, check_attention, stages
from adjcompress.tensors import deployed_parameters

SCALINGS = {
    "matrix": "each by its own compression, M / N (Eq. 8)",
    "network": "all by the network's compression, as in the authors' code",
    "none": "not at all",
}


class SubstituteMethod(Method):
    """Cross-entropy, and attention transfer where there is a teacher, on a network with substitutes.

    `substitution` is how `network` came of its dense one, which had `dense_parameters`.
    """

    name = "substitute"
    deployable = "substitute"
    compared_with = "dense"

    def __init__(
        self,
        network: nn.Module,
        substitution: Substitution,
        dense_parameters: int,
        scaling: str = "matrix",
        attention: Sequence[str] = (),
        teacher_file: TeacherFile | None = None,
    ) -> None:
        check_choice(SCALINGS, scaling, "--weight-decay-scaling")
        self.network, self.substitution, self.scaling = network, substitution, scaling
        self.dense_parameters = dense_parameters
        self.attention, self.teacher_file = tuple(attention), teacher_file
        self.teacher: nn.Module | None = None

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> SubstituteMethod:
        check_taken(cls.name, options)
        if options.substitute is None:
            raise AdjCompressError(
                "--method substitute needs --substitute NAME, such as low_rank, and --setting or --budget params=1.2M."
            )
        network, substitution = substituted(model, example, options)
        assert substitution is not None
        return cls(network, substitution, deployed_parameters(model), options.weight_decay_scaling)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> SubstituteMethod:
        substitution = Substitution.from_json(settings["substitution"])
        kept = settings["teacher"]
        return cls(
            apply_substitution(model, substitution, approximate=False),
            substitution,
            settings["dense_parameters"],
            settings["scaling"],
            settings["attention"],
            TeacherFile(**kept) if kept else None,
        )

    def taught_by_(
        self, teacher: nn.Module, example: Tensor, attention: Sequence[str] = (), file: TeacherFile | None = None
    ) -> None:
        """Learn where `teacher` looks, at the ends of the layers `attention`, by default of its stages.

        `example` is a batch (N, C, H, W). Layers that either lacks, maps of different sizes and a teacher of other classes
        are AdjCompressErrors. The teacher stays in evaluation mode and is not trained.
        """
        with evaluating(self.network):
            classes = self.network(example[:1]).shape[-1]
        teacher = copy.deepcopy(teacher).eval().requires_grad_(False)  # the caller's is left as it is
        layers = tuple(attention) or self.attention or stages(self.network, example)
        check_attention(self.network, teacher, layers, example, classes)
        self.attention, self.teacher, self.teacher_file = layers, teacher, file

    def settings(self) -> dict[str, Any]:
        file = self.teacher_file
        assert self.substitution is not None
        return {
            "substitution": self.substitution.to_json(),
            "dense_parameters": self.dense_parameters,
            "scaling": self.scaling,
            "attention": list(self.attention),
            "teacher": {"path": file.path, "sha256": file.sha256} if file else None,
        }

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        tell_progress_(self.network, progress)
        with weights_made_once(self.network), attention_of(self.network, self.attention) as maps:
            supervised = cross_entropy(self.network(images), labels)
        if not self.attention:
            return Terms(supervised, {"cross_entropy": supervised})
        transfer = attention_loss(maps, self._wanted(images))
        return Terms(supervised + transfer, {"cross_entropy": supervised, "attention": transfer})

    def _wanted(self, images: Tensor) -> dict[str, Tensor]:
        """The teacher's maps."""
        if self.teacher is None:
            raise AdjCompressError("Attention transfer needs its teacher: call taught_by_ before the training goes on.")
        self.teacher.to(images.device, torch.promote_types(images.dtype, torch.float32))
        with torch.no_grad(), attention_of(self.teacher, self.attention) as maps:
            self.teacher(images)
        return maps

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return scaled_groups(self.network, weight_decay, self.scaling, self.dense_parameters)

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {self.deployable: self.network(images)}

    def deployables(self) -> dict[str, nn.Module]:
        return {self.deployable: self.network}


def substituted(model: nn.Module, example: Tensor, options: MethodOptions) -> tuple[nn.Module, Substitution | None]:
    """`model` with the substitutes that were asked for, and their plan; itself and None where none were."""
    if options.substitute is None:
        _check_nothing_for_substitutes(options)
        return model, None
    check_choice(SCALINGS, options.weight_decay_scaling, "--weight-decay-scaling")
    if options.setting is not None and options.budgets:
        raise AdjCompressError("--setting and --budget both say how large the substitutes are: leave one of them out.")
    parameters = None
    if options.budgets:
        (budget, *others) = parse_budgets(options.budgets)
        if others or budget.cost != "params":
            raise AdjCompressError(
                f"--budget {others[0] if others else budget}: a substitute's budget is one number of parameters, params=1.2M, "
                "or params=0.1 of the dense network's."
            )
        parameters = int(budget.limit(deployed_parameters(model)))
    plan = plan_substitution(
        model,
        options.substitute,
        setting=options.setting,
        parameters=parameters,
        layers=options.substitute_layers,
        dense=options.dense_layers or (),
        example=example,
    )
    return apply_substitution(model, plan, approximate=options.approximate), plan


def _check_nothing_for_substitutes(options: MethodOptions) -> None:
    if options.budgets:
        raise AdjCompressError(
            "--budget goes with --method dan or budgeted, or with a --substitute: take one of them, or leave it out."
        )
    for option, given in {
        "--setting": options.setting is not None,
        "--substitute-layers": options.substitute_layers is not None,
        "--dense-layers": options.dense_layers is not None,
        "--weight-decay-scaling": options.weight_decay_scaling != "matrix",
    }.items():
        if given:
            raise AdjCompressError(f"{option} belongs to a --substitute: name one, or leave {option} out.")


def scaled_groups(
    network: nn.Module, weight_decay: float, scaling: str, dense_parameters: int, of: nn.Module | None = None
) -> list[dict[str, Any]]:
    """Parameter groups with the weight decay of substitutes scaled by their compression; all else as in `decay_groups`.

    Which parameters stand for a matrix, and for how large a one, the modules say themselves: those of `of`, where only a part
    of `network` holds substitutes. A substitute that is not smaller than its matrix keeps the whole decay.
    """
    inside = of or network
    whole = deployed_parameters(inside)
    by_decay: dict[float, list[nn.Parameter]] = {}
    for layer in (module for module in inside.modules() if isinstance(module, Substitute)):
        parameters = layer.compressed()
        size = sum(parameter.numel() for parameter in parameters)
        ratio = {"matrix": size / layer.dense_parameters, "network": whole / dense_parameters, "none": 1.0}[scaling]
        by_decay.setdefault(weight_decay * min(1.0, ratio), []).extend(parameters)
    apart = {id(parameter) for parameters in by_decay.values() for parameter in parameters}
    return [
        *decay_groups(network, weight_decay, apart),
        *(
            {"name": f"substitutes {decay:.3g}", "params": parameters, "weight_decay": decay}
            for decay, parameters in by_decay.items()
        ),
    ]
