"""Profiles: a target's measured constants, kept in the user's cache with the name of the machine that they hold for."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .files import write_whole
from .ir.errors import EnvironmentProblem, first_line
from .passes.target import Target
from .runtime.target_profile import machine, profile_target

_TIMES = ("ns_per_mac", "ns_per_byte", "ns_per_node")


def profile(target: Target) -> dict[str, Any]:
    """Measure ``target`` on this machine and keep what comes out; returns what was written, and ``file``."""
    measured = asdict(profile_target(target))
    kept = {name: measured[name] for name in ("channel_block", *_TIMES)}
    found = {"target": target.name, "machine": measured["measured_on"], **kept}
    path = profile_file(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "set PRUNEC_CACHE to a folder that can be written"
        raise EnvironmentProblem(f"cannot make {path.parent}: {first_line(error)}", hint=hint) from error
    write_whole(path, json.dumps(found, indent=2) + "\n")
    return {**found, "file": str(path)}


def profile_file(target: Target) -> Path:
    """Where the constants of ``target`` are kept: below ``$PRUNEC_CACHE``, or the user's folder for caches."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PRUNEC_CACHE") or Path(cache, "prunec"), "profiles", f"{target.name}.json")


def profiled(target: Target) -> Target:
    """``target`` with the constants that were measured on this machine, as it is where there are none.

    Raises
    ------
    EnvironmentProblem
        The file is there and cannot be read.
    """
    path = profile_file(target)
    try:
        if not path.exists():
            return target
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["machine"] != machine():
            return target
        block, (mac, byte, node) = int(found["channel_block"]), (float(found[name]) for name in _TIMES)
        if block < 1 or not all(0 <= ns < float("inf") for ns in (mac, byte, node)):
            raise ValueError("a constant is out of range")
        return replace(
            target, channel_block=block, ns_per_mac=mac, ns_per_byte=byte, ns_per_node=node, measured_on=machine()
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentProblem(
            f"the profile of target {target.name!r} cannot be read: {path}: {first_line(error)}",
            hint=f"delete it, or measure again: prunec profile --target {target.name}",
        ) from error
