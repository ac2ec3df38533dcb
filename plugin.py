"""What a plugin imports: how to declare an op, a criterion, a pass.

Importing a module that uses these is all that it takes; the command does it for ``--plugin FILE_OR_MODULE`` and for
installed packages with an entry point in the group ``prunec.plugins``.  ``docs/adding-an-op.md``,
``docs/adding-a-criterion.md`` and ``docs/adding-a-pass.md`` go through an example each.
"""

from .ir.dialects import spell
from .ir.errors import Declined, ModelError, UsageError
from .ir.frontends.spelling import Spelling, renamed
from .ir.opset import (
    Fitting,
    Site,
    all_carried,
    always_zero,
    declare,
    first_carried,
    moves,
    not_zero,
    zero_after_first,
    zero_after_operands,
    zero_after_weights,
    zero_if_computed,
)
from .passes.base import Kind, Pass, State, register
from .passes.groups import Groups
from .passes.plan.plan import Plan
from .passes.score.scoring import Elements, Scores, Scoring, criterion, element_criterion

__all__ = [
    "Declined",
    "Elements",
    "Fitting",
    "Groups",
    "Kind",
    "ModelError",
    "Pass",
    "Plan",
    "Scores",
    "Scoring",
    "Site",
    "Spelling",
    "State",
    "UsageError",
    "all_carried",
    "always_zero",
    "criterion",
    "declare",
    "element_criterion",
    "first_carried",
    "moves",
    "not_zero",
    "register",
    "renamed",
    "spell",
    "zero_after_first",
    "zero_after_operands",
    "zero_after_weights",
    "zero_if_computed",
]
