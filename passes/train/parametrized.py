"""What stands on the parameters of a model: its names without that, whether it may be put there, how it comes off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import nn
from torch.nn.utils import parametrize

from ...ir.errors import UsageError
from ...ir.words import listed
from .sites import Place
from .training import Training


def in_training(model: nn.Module) -> str | None:
    """The first parameter of ``model`` that a training of prunec stands on; None where there is none."""
    for name, module in model.named_modules():
        if (plain := plain_name(name)) != name and type(module).__module__.startswith(f"{__package__}."):
            return plain
    return None


def plain_name(name: str) -> str:
    """The parameter that a part of a parametrization stands on; other names as they are."""
    owner, stands, rest = f".{name}".partition(".parametrizations.")
    return f"{owner}.{rest.partition('.')[0]}".lstrip(".") if stands else name


def taken_off(places: Iterable[Place], orders: Mapping[nn.Module, Sequence[str]], *, trained: bool) -> None:
    """Make the parameters at ``places`` ordinary again: as layers see them where ``trained``, else as they are.

    Copies of the modules share the class that torch made for them, and torch takes the parameter's property off it: so
    the originals get one of their own first.  ``orders``: in what order the modules had their parameters.
    """
    for module, tensor in places:
        made = type(module)
        attributes = {k: v for k, v in vars(made).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(made.__name__, made.__bases__, attributes)
        parametrize.remove_parametrizations(module, tensor, leave_parametrized=trained)
        for name in orders.get(module, ()):
            if name in module._parameters:
                module._parameters[name] = module._parameters.pop(name)


def refuse_trained(method: Training, places: Mapping[str, Place]) -> None:
    """Raise :class:`UsageError` where a parametrization stands on one of the parameters ``places`` already."""
    stands = {n: module for n, (module, tensor) in places.items() if parametrize.is_parametrized(module, tensor)}
    if twice := [n for n, module in stands.items() if in_training(module)]:
        raise UsageError(
            f"training by {method.name}: {listed(twice)} trained already",
            hint="one method for each weight (targets, ignore), one after the other for the same; finish() of the "
            "object that prunec.train gave ends a training that was left open",
        )
    if stands:
        raise UsageError(
            f"training by {method.name}: {listed(stands)} parametrized by something else (weight_norm, spectral_norm)",
            hint="leave these out (ignore), or torch.nn.utils.parametrize.remove_parametrizations first",
        )
