"""The version, which the command prints without importing anything else, and those of what prunec stands on."""

from __future__ import annotations

__version__ = "0.1.0"

_LIBRARIES = ("torch", "onnx", "onnxruntime", "onnx-graphsurgeon", "numpy", "scipy", "networkx")


def versions() -> dict[str, str]:
    """Versions of prunec, of Python and of the libraries below, ``absent`` for one that is not installed."""
    import platform
    from importlib import metadata

    found = {"prunec": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
