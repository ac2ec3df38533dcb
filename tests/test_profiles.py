"""Profiles: what a target costs on this machine is measured, kept, and used on this machine alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prunec import profiles
from prunec.cli import main
from prunec.ir.errors import EnvironmentProblem
from prunec.passes.target import find_target
from prunec.profiles import profile, profile_file, profiled

TARGET = find_target("ort-cpu")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNEC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_without_a_profile_a_target_is_as_declared() -> None:
    assert profiled(TARGET) is TARGET


def test_what_was_measured_is_used(cache: Path) -> None:
    found = profile(TARGET)
    assert Path(found["file"]) == profile_file(TARGET) == cache / "profiles" / "ort-cpu.json"
    target = profiled(TARGET)
    assert target.measured_on == found["machine"] != ""
    assert (target.ns_per_mac, target.channel_block) == (found["ns_per_mac"], found["channel_block"])
    assert 1e-4 < target.ns_per_mac < 10
    assert target.ns_per_byte > 0
    assert target.ns_per_node >= 0
    assert target.channel_block in (4, 8, 16, 32)


def test_a_profile_of_before_holds() -> None:
    found = profile(TARGET)
    path = Path(found["file"])
    path.write_text(json.dumps({name: value for name, value in found.items() if name != "idle_share"}))
    assert profiled(TARGET).ns_per_mac == found["ns_per_mac"]
    assert profiled(TARGET).idle_share == TARGET.idle_share


@pytest.mark.parametrize("name", ["generic", "ort-cpu-avx2"])
def test_a_target_that_names_its_block_keeps_it(name: str) -> None:
    profile(find_target(name))
    assert profiled(find_target(name)).channel_block == find_target(name).channel_block


def test_torch_is_measured_in_torch() -> None:
    target = find_target("torch-cpu")
    found = profile(target)
    assert (found["channel_block"], found["idle_share"]) == (target.channel_block, 0)
    assert 1e-4 < profiled(target).ns_per_mac < 10


def test_another_machine_does_not_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    profile(TARGET)
    monkeypatch.setattr(profiles, "machine", lambda: "another")
    assert profiled(TARGET) is TARGET


def test_a_cache_that_is_another_users_is_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> str:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "read_text", forbidden)
    assert profiled(TARGET) is TARGET


def test_without_a_home_there_is_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("PRUNEC_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert profiled(TARGET) is TARGET
    with pytest.raises(EnvironmentProblem, match="no folder for caches"):
        profile(TARGET)


CHANGES = [
    {"ns_per_mac": "fast"},
    {"idle_share": 2},
    {"channel_block": 0},
    {"channel_block": True},
    {"ns_per_byte": -1},
    None,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_profile_is_named(change: dict[str, object] | None) -> None:
    path = Path(profile(TARGET)["file"])
    path.write_text("{" if change is None else json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(EnvironmentProblem, match=r"ort-cpu\.json") as caught:
        profiled(TARGET)
    assert "prunec profile --target ort-cpu" in str(caught.value.hint)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--target", "ort-cpu", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["target"] == "ort-cpu"
    assert profiled(TARGET).ns_per_byte == found["ns_per_byte"]
    assert main(["profile", "--target", "ort-cpu", "--quiet"]) == 0
    assert "ns_per_byte" in capsys.readouterr().out
    assert main(["profile", "--target", "gpu"]) == 2


def test_a_cache_that_cannot_be_written(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache.write_text("a file")
    assert main(["profile", "--quiet"]) == 7
    assert "PRUNEC_CACHE" in capsys.readouterr().err
