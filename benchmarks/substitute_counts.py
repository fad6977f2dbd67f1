"""Claim: parameters and multiply-adds of arXiv:1906.00859 come out to the integer, and what they are in this project's counts.

    python benchmarks/substitute_counts.py

writes results/substitute_counts.json and prints, for each network, the published figures and ours. The published way counts a
bias in every hashed layer, a tensor train inside Tucker's core, and more than MACs: `cost/published.py`.
"""

from __future__ import annotations

import torch
from record import no_options, record
from torch import nn

import adjcompress as ac
from adjcompress.cost.published import mult_adds
from adjcompress.substitutes.tucker import Tucker

# network, substitute, setting, published parameters, published mult-adds (0: not published exactly)
PUBLISHED = (
    ("wrn_28_10", None, 0.0, 36_479_194, 5_245_638_922),
    ("wrn_28_10", "hashed", 1, 4_380_138 + 8_960, 629_696_778),  # as many weights as matrices: depthwise separable, with a bias
    ("wrn_28_10", "low_rank", 0.03, 601_162, 83_745_034),
    ("wrn_28_10", "shuffle", 7, 719_994, 101_472_500),
    ("wrn_28_10", "tensor_train", 0.7, 2_413_390, 629_700_000),
    ("wrn_28_10", "hashed", 0.05, 568_426, 629_700_000),
    ("wrn_28_10", "tucker", 0.67, 2_381_200, 629_700_000),
    ("wrn_28_10", "acdc", 14, 609_258, 0),  # ACDC_15; its 1.690183e9 operations are counted in a way that is not told
    ("wrn_50_2", None, 0.0, 68_883_240, 11_412_824_040),
    ("wrn_50_2", "low_rank", 0.03, 4_353_832, 527_291_400),
    ("wrn_50_2", "shuffle", 1, 17_717_096, 3_220_175_000),
    ("wrn_50_2", "tensor_train", 0.27, 4_341_432, 4_860_992_000),
    ("darts", None, 0.0, 3_349_342, 537_399_900),
)


def published_way(dense: nn.Module, network: nn.Module, plan: ac.Substitution | None) -> int:
    """Our network's parameters, counted as they were published."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    if plan is None or plan.substitute not in ("hashed", "tucker"):
        return parameters
    shapes = [dense.get_parameter(f"{name}.weight").shape for name in plan.layers]
    sizes = [(inputs, outputs) for outputs, inputs, *_ in shapes]
    if plan.substitute == "hashed":
        return parameters + sum(outputs for _, outputs in sizes)
    counts = ((Tucker.published_parameters(*size, plan.setting), Tucker.parameter_count(*size, plan.setting)) for size in sizes)
    return parameters + sum(theirs - ours for theirs, ours in counts)


def main() -> None:
    no_options(__doc__)
    rows = []
    for name, substitute, setting, parameters, operations in PUBLISHED:
        imagenet = name == "wrn_50_2"
        example = torch.zeros(1, 3, 224, 224) if imagenet else torch.zeros(1, 3, 32, 32)
        with torch.device("meta"):
            dense = ac.create_model(name, 1000 if imagenet else 10)
            plan = ac.plan_substitution(dense, substitute, setting=setting) if substitute else None
            network = ac.apply_substitution(dense, plan, approximate=False) if plan else dense
        counts = ac.count(network, example)
        row = {
            "network": name,
            "substitute": substitute,
            "setting": setting,
            "published_parameters": parameters,
            "parameters_published_way": published_way(dense, network, plan),
            "parameters": counts.parameters,
            "published_mult_adds": operations,
            "mult_adds_published_way": mult_adds(network, example, global_pool=imagenet),
            "macs": counts.macs,
        }
        rows.append(row)
        label = f"{name} {substitute} {setting:g}" if substitute else name
        print(
            f"{label:26}  parameters {parameters:>11,} published, {row['parameters_published_way']:>11,} so counted, "
            f"{counts.parameters:>11,} ours; mult-adds {operations:>14,}, {row['mult_adds_published_way']:>14,}; "
            f"MACs {counts.macs:>14,}"
        )
    record("substitute_counts", {"rows": rows}, "exact")


if __name__ == "__main__":
    main()
