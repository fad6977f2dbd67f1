"""How does a network leave training: as a package, as an ONNX file, with proof?"""

from adjcompress.deploy.export import ExportReport, export_full, export_onnx, export_package
from adjcompress.deploy.extract import ExtractReport, extract_package, first_images
from adjcompress.deploy.made import Made, made, newest_onnx, newest_package, remember
from adjcompress.deploy.package import PackageInfo, load_package, package_info, save_package

__all__ = [
    "ExportReport",
    "ExtractReport",
    "Made",
    "PackageInfo",
    "export_full",
    "export_onnx",
    "export_package",
    "extract_package",
    "first_images",
    "load_package",
    "made",
    "newest_onnx",
    "newest_package",
    "package_info",
    "remember",
    "save_package",
]
