"""In which file is a network kept, and how is it built again?"""

from adjcompress.packages.package import PackageInfo, is_package, load_package, package_info, save_package
from adjcompress.packages.rebuilding import rebuild

__all__ = ["PackageInfo", "is_package", "load_package", "package_info", "rebuild", "save_package"]
