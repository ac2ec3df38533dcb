"""The repository root is the import package `prunec`; all else is in pyproject.toml.

`.dev/prunec` is one tracked symlink to `..`.  Building through it makes an editable
install a plain .pth to .dev/ (static, so pyright, mypy and IDEs follow it; only the
name `prunec` appears).  Where git checked the link out as a text file (Windows without
symlinks) the same packages are mapped from the root instead.
"""

import os

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

LINKED = os.path.isdir(os.path.join(".dev", "prunec", "ir"))
ROOMS = ("ir", "passes", "runtime", "draw", "loops", "portfolios", "serve")
FOLDERS = [f for name in ROOMS for f in (name, name + ".*")]
NOT_OURS = {"setup", "conftest", "noxfile"}  # root .py files that are not prunec modules


class BuildPy(build_py):
    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [m for m in found if package != "prunec" or m[1] not in NOT_OURS]


setup(
    packages=["prunec"]
    + ["prunec." + p for p in find_packages(os.path.join(".dev", "prunec") if LINKED else ".", include=FOLDERS)],
    package_dir={"": ".dev"} if LINKED else {"prunec": "."},
    cmdclass={"build_py": BuildPy},
)
