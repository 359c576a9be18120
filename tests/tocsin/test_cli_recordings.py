"""Recording on the real kernel, and replaying without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tocsin.lab import Lab

Tocsin = Callable[..., Any]


@pytest.mark.kernel
@pytest.mark.docker
def test_record_and_replay(tocsin: Tocsin, tocsin_process: Tocsin, tmp_path: Path) -> None:
    file = tmp_path / "x.tocsin"
    with Lab() as lab:
        lab.container("recorded", "sleep", "60")
        ran = tocsin_process("record", str(file), "--seconds", "2")
    assert ran.code == 0, ran.err
    assert "0 lost" in ran.err
    first, second = tocsin("replay", str(file), "--json"), tocsin("replay", str(file), "--json")
    assert first.rows
    assert first.out == second.out
    assert tocsin("replay", str(file), "--alerts").code == 0
    again = tocsin("record", str(file))
    assert (again.code, "is there already" in again.err) == (2, True)


def test_what_cannot_be_replayed(tocsin: Tocsin, tmp_path: Path) -> None:
    file = tmp_path / "x.tocsin"
    file.write_bytes(b"not a capture")
    foreign = tocsin("replay", str(file))
    assert (foreign.code, "is no capture" in foreign.err) == (2, True)
    both = tocsin("replay", str(file), "--alerts", "--send")
    assert (both.code, "choose one" in both.err) == (2, True)
    assert tocsin("replay", str(tmp_path / "none")).code == 2


def test_recording_needs_rights_and_says_so(tocsin: Tocsin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sensor.checks._CAPABILITIES", {"CAP_NOPE": 63})
    ran = tocsin("record", str(tmp_path / "x"))
    assert (ran.code, "lacks CAP_NOPE; mend it with: run the sensor as root" in ran.err) == (2, True)
    assert not (tmp_path / "x").exists()
