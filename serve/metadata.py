"""The documents that say what is served: the server, its model, the variants (versions, in the protocol's words).

Beyond the protocol: a variant's accuracy, latency and sizes stand as its ``parameters``, and ``/v2/models`` lists what
there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..runtime.session import Input
from ..version import __version__
from .datatypes import datatype

if TYPE_CHECKING:
    from ..runtime.portfolio import Portfolio
    from ..runtime.variant import Variant

EXTENSIONS = ("binary_tensor_data", "model_repository_index")
PLATFORM = "onnxruntime_onnx"
_FIGURES = ("accuracy", "latency_ms", "size_bytes", "memory_bytes", "density", "dominated_by")


def server() -> dict[str, Any]:
    """Of ``/v2``."""
    return {"name": "prunec", "version": __version__, "extensions": list(EXTENSIONS)}


def models(portfolio: Portfolio) -> dict[str, Any]:
    """Of ``/v2/models``."""
    return {"models": [{"name": portfolio.name, "variants": list(portfolio.variants), "active": portfolio.active}]}


def index(portfolio: Portfolio, ready: bool) -> list[dict[str, Any]]:
    """Of ``/v2/repository/index``: a line for each variant."""
    state = "READY" if ready else "UNAVAILABLE"
    reason = "" if ready else "the server stops"
    return [{"name": portfolio.name, "version": v, "state": state, "reason": reason} for v in portfolio.variants]


def model(portfolio: Portfolio) -> dict[str, Any]:
    """Of ``/v2/models/{name}``."""
    return _model(portfolio, list(portfolio.variants)) | {"parameters": {"active": portfolio.active}}


def version(portfolio: Portfolio, variant: Variant) -> dict[str, Any]:
    """Of ``/v2/models/{name}/versions/{variant}``."""
    figures = {name: getattr(variant, name) for name in _FIGURES}
    return _model(portfolio, [variant.name]) | {"parameters": {k: v for k, v in figures.items() if v is not None}}


def _model(portfolio: Portfolio, versions: list[str]) -> dict[str, Any]:
    return {
        "name": portfolio.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": [_tensor(i) for i in portfolio.inputs],
        "outputs": [_tensor(o) for o in portfolio.outputs],
    }


def _tensor(declared: Input) -> dict[str, Any]:
    shape = [dim if isinstance(dim, int) else -1 for dim in declared.shape]
    return {"name": declared.name, "datatype": datatype(declared.dtype), "shape": shape}
