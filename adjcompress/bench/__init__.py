"""How fast, how large, on which machine?"""

from adjcompress.bench.cuda import benchmark_cuda, time_networks
from adjcompress.bench.latency import BenchReport, Timing, benchmark
from adjcompress.bench.machine import Machine, machine_facts
from adjcompress.bench.summary import Ratio, Summary, speedup, summarise

__all__ = [
    "BenchReport",
    "Machine",
    "Ratio",
    "Summary",
    "Timing",
    "benchmark",
    "benchmark_cuda",
    "machine_facts",
    "speedup",
    "summarise",
    "time_networks",
]
