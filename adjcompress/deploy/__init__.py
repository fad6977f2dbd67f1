"""How does a network leave training: as a package, as an ONNX file, with proof?"""

from adjcompress.deploy.export import ExportOptions, ExportReport, export_full, export_onnx, export_package
from adjcompress.deploy.extract import ExtractReport, extract_package
from adjcompress.deploy.int8 import Int8Options, Int8Report
from adjcompress.deploy.layout import align_auto, block_channels, unblocked, unblocked_by
from adjcompress.deploy.trail import Made, deployed, keep, made, newest_onnx, newest_package, remember, run_of

__all__ = [
    "ExportOptions",
    "ExportReport",
    "ExtractReport",
    "Int8Options",
    "Int8Report",
    "Made",
    "align_auto",
    "block_channels",
    "deployed",
    "export_full",
    "export_onnx",
    "export_package",
    "extract_package",
    "keep",
    "made",
    "newest_onnx",
    "newest_package",
    "remember",
    "run_of",
    "unblocked",
    "unblocked_by",
]
