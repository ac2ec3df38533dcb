"""Profiles: a target's measured constants, kept in the user's cache with the name of the machine that they hold for."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .files import write_whole
from .ir.errors import EnvironmentProblem, first_line
from .passes.target import Target

_ELSEWHERE = "set PRUNEC_CACHE to a folder that can be written"
_WIDEST_BLOCK = 1024
_TIMES = ("ns_per_mac", "ns_per_byte", "ns_per_node")
_CONSTANTS = ("channel_block", "idle_share", *_TIMES)


def profile(target: Target) -> dict[str, Any]:
    """Measure ``target`` on this machine and keep what comes out; returns what was written, and ``file``."""
    from .runtime.target_profile import profile_target  # loads ONNX Runtime, which reading a profile does without

    measured = asdict(profile_target(target))
    kept = {name: measured[name] for name in _CONSTANTS}
    found = {"target": target.name, "machine": machine(), **kept}
    path = profile_file(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentProblem(f"cannot make {path.parent}: {first_line(error)}", hint=_ELSEWHERE) from error
    write_whole(path, json.dumps(found, indent=2) + "\n")
    return {**found, "file": str(path)}


def profile_file(target: Target) -> Path:
    """Where the constants of ``target`` are kept: below ``$PRUNEC_CACHE``, or the user's folder for caches.

    Raises
    ------
    EnvironmentProblem
        The user has no home folder, and no variable names another one.
    """
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise EnvironmentProblem(f"there is no folder for caches: {first_line(error)}", hint=_ELSEWHERE) from error
    return Path(os.environ.get("PRUNEC_CACHE") or Path(cache, "prunec"), "profiles", f"{target.name}.json")


def profiled(target: Target) -> Target:
    """``target`` with the constants that were measured on this machine; as it is where none can be found.

    Raises
    ------
    EnvironmentProblem
        The file is there and damaged.
    """
    try:
        path = profile_file(target)
        text = path.read_text(encoding="utf-8")
    except (EnvironmentProblem, OSError):
        return target  # not measured, or not to be seen by this user: a compile does without
    except UnicodeDecodeError as error:
        raise _damaged(path, error) from error
    try:
        return _with_constants(target, json.loads(text))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(path, error) from error


def machine() -> str:
    """This machine's name and processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.node()} ({models[0] if models else platform.processor() or platform.machine()})"


def _with_constants(target: Target, found: dict[str, Any]) -> Target:
    """``target`` with the constants ``found``, if they are this machine's."""
    here = machine()
    if found["machine"] != here:
        return target
    found = {"idle_share": target.idle_share, **found}  # older profiles lack it
    block, times = found["channel_block"], [found[name] for name in _TIMES]
    if type(block) is not int or not 1 <= block <= _WIDEST_BLOCK:
        raise ValueError(f"channel_block cannot be {block!r}")
    if not all(type(ns) in (int, float) and 0 <= ns < float("inf") for ns in times):
        raise ValueError(f"times in nanoseconds cannot be {times}")
    if type(found["idle_share"]) not in (int, float) or not 0 <= found["idle_share"] <= 1:
        raise ValueError(f"idle_share cannot be {found['idle_share']!r}")
    return replace(target, **{name: found[name] for name in _CONSTANTS}, measured_on=here)


def _damaged(path: Path, error: Exception) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"{path} is no profile: {type(error).__name__}: {first_line(error)}",
        hint=f"delete it, or measure again: prunec profile --target {path.stem}",
    )
