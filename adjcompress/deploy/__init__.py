"""How does a network leave training: as a package, as an ONNX file, with proof?"""

from adjcompress.deploy.export import ExportOptions, ExportReport, export_full, export_onnx, export_package
from adjcompress.deploy.extract import ExtractReport, extract_package, first_pixels
from adjcompress.deploy.int8 import Int8Options, Int8Report
from adjcompress.deploy.layout import align_auto, block_channels, unblocked
from adjcompress.deploy.made import Made, deployed, keep, made, newest_onnx, newest_package, remember, run_of
from adjcompress.deploy.package import PackageInfo, load_package, package_info, save_package

__all__ = [
    "ExportOptions",
    "ExportReport",
    "ExtractReport",
    "Int8Options",
    "Int8Report",
    "Made",
    "PackageInfo",
    "align_auto",
    "block_channels",
    "deployed",
    "export_full",
    "export_onnx",
    "export_package",
    "extract_package",
    "first_pixels",
    "keep",
    "load_package",
    "made",
    "newest_onnx",
    "newest_package",
    "package_info",
    "remember",
    "run_of",
    "save_package",
    "unblocked",
]
