"""How is a network trained alone? The full one, or, given an alpha, the small one without the full."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adjcompress.errors import AdjCompressError
from adjcompress.methods.options import MethodOptions, check_plan_alone, check_taken
from adjcompress.methods.protocol import Method, Terms, alpha_name, decay_groups
from adjcompress.methods.supervised import cross_entropy, refuse_auxiliary, tell_progress_
from adjcompress.widths import WidthPlan, plan_like, plan_widths, slice_model


class StandardMethod(Method):
    """Cross-entropy on one network. With a plan, that network is the small one, and the full one is never trained."""

    name = "standard"

    def __init__(self, network: nn.Module, deployable: str = "full", plan: WidthPlan | None = None) -> None:
        self.network = network if plan is None else slice_model(network, plan)
        self.deployable, self.plan = deployable, plan

    @classmethod
    def build(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> StandardMethod:
        return cls(model, *cls.chosen(model, example, options))

    @classmethod
    def chosen(cls, model: nn.Module, example: Tensor, options: MethodOptions) -> tuple[str, WidthPlan | None]:
        """What the network is called that is trained, and by which plan it is cut out of `model`; None: it is all of it."""
        check_taken(cls.name, options)
        if options.cuts:
            refuse_auxiliary(model)
        elif (options.slim, options.keep, options.align) != (None, None, 1):
            raise AdjCompressError(
                f"--slim, --keep and --align say how a network is cut, and --method {cls.name} trains all of it here: leave "
                "them out, or give --alpha."
            )
        if options.plan is not None:
            check_plan_alone(options)
            return "plan", plan_like(model, example, options.plan)
        if len(options.alphas) > 1:
            raise AdjCompressError(f"--method {cls.name} trains one network; {len(options.alphas)} alphas were given.")
        if not options.alphas or options.alphas[0] == 1:
            return "full", None
        alpha = options.alphas[0]
        return alpha_name(alpha), plan_widths(model, example, alpha, options.slim, options.keep, options.align)

    @classmethod
    def restore(cls, model: nn.Module, settings: Mapping[str, Any]) -> StandardMethod:
        plan = settings["plan"]
        return cls(model, settings["deployable"], WidthPlan.from_json(plan) if plan else None)

    def settings(self) -> dict[str, Any]:
        return {"deployable": self.deployable, "plan": self.plan.to_json() if self.plan else None}

    def loss(self, images: Tensor, labels: Tensor, progress: float) -> Terms:
        tell_progress_(self.network, progress)
        loss = cross_entropy(self.network(images), labels)
        return Terms(loss, {"cross_entropy": loss})

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        return decay_groups(self.network, weight_decay)

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        return {self.deployable: self.network(images)}

    def plan_of(self, deployable: str) -> WidthPlan | None:
        return self.plan

    def deployables(self) -> dict[str, nn.Module]:
        return {self.deployable: self.network}
