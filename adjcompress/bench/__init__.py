"""How fast, how large, on which machine?"""

from adjcompress.bench.cuda import time_networks
from adjcompress.bench.latency import BenchReport, Timing, benchmark
from adjcompress.bench.machine import Machine, machine_facts
from adjcompress.bench.statistics import Ratio, Summary, speedup, summarise

__all__ = [
    "BenchReport",
    "Machine",
    "Ratio",
    "Summary",
    "Timing",
    "benchmark",
    "machine_facts",
    "speedup",
    "summarise",
    "time_networks",
]
