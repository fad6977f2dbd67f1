"""How is a small network trained alone by a trained one? Distillation, arXiv:1503.02531."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from adjcompress.adjoined.loss import divergence
from adjcompress.errors import AdjCompressError
from adjcompress.methods.options import MethodOptions
from adjcompress.methods.protocol import Terms
from adjcompress.methods.standard import StandardMethod
from adjcompress.methods.supervised import cross_entropy, refuse_auxiliary, tell_progress_
from adjcompress.methods.teacher import TeacherFile
from adjcompress.running import evaluating
from adjcompress.widths import WidthPlan


class DistillMethod(StandardMethod):
    """CE(small) + weight * T^2 * KL(teacher / T || small / T), T the temperature; the teacher is frozen."""

    name = "distill"
    cuts_always = True
    needs_teacher = True

    def __init__(
        self,
        network: nn.Module,
        deployable: str = "full",
        plan: WidthPlan | None = None,
        temperature: float = 1.0,
        weight: float = 1.0,
        teacher_file: TeacherFile | None = None,
    ) -> None:
        super().__init__(network, deployable, plan)
        if not 0 < temperature < math.inf:
            raise AdjCompressError(f"--temperature {temperature:g} must be above 0, and finite.")
        self.temperature, self.weight, self.teacher_file = temperature, weight, teacher_file
        self.teacher: nn.Module | None = None

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> DistillMethod:
        refuse_auxiliary(model)
        alphas = options.alphas if options.alphas or options.plan is not None else (8.0,)
        deployable, plan = cls.chosen(model, example, replace(options, alphas=alphas))
        return cls(model, deployable, plan, options.temperature, options.weight)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> DistillMethod:
        plan, kept = settings["plan"], settings["teacher"]
        return cls(
            model,
            settings["deployable"],
            WidthPlan.from_json(plan) if plan else None,
            settings["temperature"],
            settings["weight"],
            TeacherFile(**kept) if kept else None,
        )

    def taught_by_(
        self, teacher: nn.Module, example: Tensor, attention: Sequence[str] = (), file: TeacherFile | None = None
    ) -> None:
        """Learn what `teacher` answers. A teacher of other classes, and `attention`, are AdjCompressErrors."""
        if attention:
            raise AdjCompressError("--attention goes with --method substitute; distill compares answers: leave it out.")
        teacher = copy.deepcopy(teacher).eval().requires_grad_(False)  # the caller's is left as it is
        with evaluating(self.network):
            theirs, ours = teacher(example[:1]).shape, self.network(example[:1]).shape
        if theirs != ours:
            raise AdjCompressError(f"--teacher gives logits {tuple(theirs)}, the small network {tuple(ours)}, for one image.")
        self.teacher, self.teacher_file = teacher, file

    def settings(self) -> dict[str, Any]:
        file = self.teacher_file
        return {
            **super().settings(),
            "temperature": self.temperature,
            "weight": self.weight,
            "teacher": {"path": file.path, "sha256": file.sha256} if file else None,
        }

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        if self.teacher is None:
            raise AdjCompressError("Distillation needs its teacher: call taught_by_ before the training.")
        self.teacher.to(images.device, torch.promote_types(images.dtype, torch.float32))
        with torch.no_grad():
            wanted = self.teacher(images)
        tell_progress_(self.network, progress)
        small = self.network(images)
        supervised = cross_entropy(small, labels)
        apart = divergence(wanted / self.temperature, small / self.temperature, labels) * self.temperature**2
        return Terms(supervised + self.weight * apart, {"cross_entropy": supervised, "divergence": apart})
