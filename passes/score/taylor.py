"""First-order Taylor: what the loss would change."""

import numpy as np

from ...ir import arrays
from ...ir.errors import UsageError
from .scoring import Scores, Scoring, criterion


@criterion("taylor")
def taylor(scoring: Scoring) -> Scores:
    """Sum of |w · dL/dw| over everything that goes with a unit.

    L is ``context["loss"](outputs)`` on the example inputs (by default the mean square of the outputs), so no data is
    needed to try it; hand in a loss over real data for scores that mean something.

    References
    ----------
    Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equation 8 (there squared).
    """
    graph = scoring.groups.analysis.graph
    if graph.dialect != "fx":
        raise UsageError(
            "criterion 'taylor' needs gradients", hint="compile the torch module instead of its .onnx file"
        )
    for constant in graph.constants.values():
        arrays.require_values(constant.data)
    from ...ir.emit.fx import gradients

    found = gradients(graph, scoring.state.context.get("loss"))
    return scoring.total(lambda p: np.abs(p.data * found[p.name]))
