"""Claim: our counts are the papers', to the integer (arXiv:2006.05624 and its first version; 224 px, 1000 classes).

The published ratios count convolution weights plus one parameter an output channel, with r_beta over the slim layers.

    python benchmarks/paper_counts.py
"""

from __future__ import annotations

from record import no_options, record
from torch import Tensor, nn, zeros

import adjcompress as ac

# network, alpha: parameters with and without the classifier, MACs in units of 1e9 with three decimals
EXPECTED = {
    ("resnet50", 1): (25_557_032, 23_508_032, 4.089),
    ("resnet50", 4): (2_233_640, 1_720_640, 1.031),
    ("resnet50", 8): (869_544, 612_544, 0.860),
    ("resnet50", 16): (457_832, 328_832, 0.811),
    ("xresnet50", 1): (25_603_976, 23_554_976, 4.676),
    ("xresnet50", 4): (2_280_584, 1_767_584, 1.618),
    ("xresnet50", 8): (916_488, 659_488, 1.447),
    ("xresnet50", 16): (504_776, 375_776, 1.397),
}
# claim: network, classes, alpha, beta, with the classifier, and the two ratios: as published, and with both BN parameters
CLAIMS = {
    "13.7x": ("resnet50", 1000, 4, 0.0, False, (13.709, 13.662)),
    "11.5x": ("resnet50", 1000, 4, 0.0, True, (11.470, 11.442)),
    "99.7x": ("resnet50", 100, 16, 0.9, False, (99.72, 98.56)),
    "95x": ("resnet50", 100, 16, 0.9, True, (95.37, 94.32)),
    "49x": ("resnet18", 100, 4, 0.9, False, (48.86, 48.57)),
}


def published_count(network: nn.Module, classifier: bool, per_channel: int, beta: float = 0.0) -> float:
    """Convolution weights, `per_channel` parameters an output channel, and the classifier; slim layers thinned by beta."""
    total = 0.0
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            slim = name.startswith(("layer2", "layer3", "layer4"))
            total += module.weight.numel() * (1 - beta if slim else 1) + per_channel * module.out_channels
        elif isinstance(module, nn.Linear) and classifier:
            total += sum(parameter.numel() for parameter in module.parameters())
    return total


def small_of(name: str, classes: int, alpha: int, example: Tensor) -> tuple[nn.Module, nn.Module]:
    full = ac.create_model(name, classes)
    return full, full if alpha == 1 else ac.slice_model(full, ac.plan_widths(full, example, alpha))


def main() -> None:
    no_options(__doc__)
    example = zeros(1, 3, 224, 224)
    counts, claims = [], []
    for (name, alpha), (parameters, without, gmacs) in EXPECTED.items():
        _, small = small_of(name, 1000, alpha, example)
        ours = ac.count(small, example)
        bare = ours.parameters - sum(parameter.numel() for parameter in small.get_submodule("fc").parameters())
        assert (ours.parameters, bare) == (parameters, without), (name, alpha, ours.parameters, bare)
        assert round(ours.macs / 1e9, 3) == gmacs, (name, alpha, ours.macs)
        print(
            f"{name:10} alpha {alpha:2}  {ours.parameters:11,} parameters, {bare:11,} without fc, {ours.macs / 1e9:.3f} GMACs"
        )
        counts.append({"network": name, "alpha": alpha, "parameters": ours.parameters, "without_fc": bare, "macs": ours.macs})
    for claim, (name, classes, alpha, beta, classifier, expected) in CLAIMS.items():
        full, small = small_of(name, classes, alpha, example)
        ratios = []
        for per_channel, wanted in zip((1, 2), expected, strict=True):
            ratio = published_count(full, classifier, per_channel) / published_count(small, classifier, per_channel, beta)
            digits = len(str(wanted).partition(".")[2])
            assert round(ratio, digits) == round(wanted, digits), (claim, ratio, wanted)
            ratios.append(ratio)
        note = "r_beta: a sparse file must also tell which weights are kept" if beta else "a dense network"
        print(f"{claim:6} {name} alpha {alpha}, beta {beta}: {ratios[0]:.2f}x as published, {ratios[1]:.2f}x with both BN")
        print(f"       {note}")
        claims.append(
            {
                "claim": claim,
                "network": name,
                "alpha": alpha,
                "beta": beta,
                "as_published": ratios[0],
                "both_bn": ratios[1],
            }
        )
    record("paper_counts", {"counts": counts, "claims": claims}, "exact")


if __name__ == "__main__":
    main()
