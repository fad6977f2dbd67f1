"""Claim: ResNet-50 at alpha 4 in 8 bits is 9 times faster and 40 times smaller than the ResNet-50 that went in.

Float and int8, full and small, side by side: ONNX Runtime, one core, 224 px, batch 1, 1,000 classes. Latency and bytes do
not depend on what the weights have learnt: they are random here, calibrated on real images. What int8 costs in accuracy is
measured on trained networks by benchmarks/deployment.py.

    python benchmarks/int8.py --data photos64.npz --duration 30
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from record import record

import adjcompress as ac
from adjcompress.data import DataSpec, first_pixels, read_data
from adjcompress.deploy.int8 import quantise

ANY_DROP = 100.0  # the weights have learnt nothing that could be lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="real images for calibration")
    parser.add_argument("--duration", type=float, default=30.0, help="seconds for each target")
    parser.add_argument("--targets", nargs="+", default=["one-core", "two-core"])
    arguments = parser.parse_args()
    data = read_data(DataSpec(arguments.data, 224, limit=64))
    images = data.preprocessing.normalise(first_pixels(data, data.train, 7))
    full = ac.create_model("resnet50", 1000).eval()
    small = ac.slice_model(full, ac.plan_widths(full, images[:1], 4, align=16)).eval()
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, network in (("alpha4", small), ("full", full)):
            whole, eight = Path(folder) / f"{name}.onnx", Path(folder) / f"{name}-int8.onnx"
            ac.export_onnx(network, whole, images)
            options = ac.Int8Options(calibration=48, max_drop=ANY_DROP)
            report = quantise(whole, eight, eight, data, options, from_pixels=False)
            assert not report.float_layers, report.float_layers
            files += [eight, whole]
        bench = ac.benchmark(files, files[-1], targets=arguments.targets, duration=arguments.duration)
        whole_bytes = files[-1].stat().st_size
    for timing in bench.timings:
        figures[f"{timing.path.stem}, {timing.setting}"] = {
            "p50_ms": timing.latency.p50_ms,
            "min_ms": timing.latency.min_ms,
            "times_faster": timing.speedup.value,
            "interval": [timing.speedup.low, timing.speedup.high],
            "load_ms": timing.load_ms,
            "first_ms": timing.first_ms,
            "bytes": timing.bytes,
            "times_smaller": whole_bytes / timing.bytes,
            "runs": timing.latency.runs,
            "noisy": timing.latency.noisy,
        }
        print(
            f"{timing.path.stem:12} {timing.setting:9} {timing.latency.p50_ms:7.2f} ms  {timing.speedup.value:5.2f}x faster  "
            f"{timing.bytes / 1e6:6.2f} MB  {whole_bytes / timing.bytes:5.1f}x smaller"
        )
    record("int8", figures, "latency: see runs; load and first: median of 3 processes")


if __name__ == "__main__":
    main()
