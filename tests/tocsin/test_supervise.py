"""The supervisor with real processes: small scripts that keep the contract of tocsin.processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHILD = """
import os, signal, socket, sys, threading
name, run_dir = sys.argv[1:3]
if name in sys.argv[3:]:
    sys.stderr.write("error: rules/bad.yml:3: is wrong\\n")
    sys.exit(2)
if "slow" in sys.argv[3:]:
    open(f"{run_dir}/checking", "w").close()
    signal.pause()
print("checked", flush=True)
if os.read(0, 3) != b"go\\n":
    sys.exit(2)
listener = socket.socket(socket.AF_UNIX)
listener.bind(f"{run_dir}/{name}.sock.new")
os.rename(f"{run_dir}/{name}.sock.new", f"{run_dir}/{name}.sock")
listener.listen()
def note(what):
    with open(f"{run_dir}/journal", "a") as journal:
        journal.write(f"{what} {name}\\n")
def stop(*_):
    note("stopped")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
note("started")
sys.stderr.write(f"hello from {name}\\n")
sys.stderr.flush()
def watch():
    while os.read(0, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
while True:
    signal.pause()
"""

DRIVER = """
import asyncio, os, signal, sys
from pathlib import Path
from tocsin.errors import TocsinError
from tocsin.link import in_use
from tocsin.supervise import Supervisor, write_line
run_dir, child, *bad = sys.argv[1:]
names = ["a", "b", "c"]
async def ready(name):
    return in_use(Path(run_dir) / f"{name}.sock")
async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    supervisor = Supervisor(
        {n: [sys.executable, child, n, run_dir, *bad] for n in names}, Path(run_dir), ["c", "b", "a"], ready,
        lambda name, line: write_line(f"{name}: {line}"), lambda s: print("ready", flush=True),
    )
    await supervisor.run(stop)
try:
    asyncio.run(main())
except TocsinError as e:
    sys.stderr.write(f"error: {e}\\n")
    sys.exit(e.exit_code)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "driver.py").write_text(DRIVER)
    running: list[subprocess.Popen[str]] = []

    def begin(*bad: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "run"), str(tmp_path / "child.py"), *bad],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def wait_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def state(tmp_path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tmp_path / "run/up.json").read_text())
    return loaded


def until(condition: Callable[[], bool], timeout_s: float = 10) -> float:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < timeout_s, "waited too long"
        time.sleep(0.01)
    return time.monotonic() - begun


def journal(tmp_path: Path) -> list[str]:
    return (tmp_path / "run/journal").read_text().splitlines()


def until_started(tmp_path: Path, name: str, times: int) -> float:
    return until(lambda: journal(tmp_path).count(f"started {name}") == times)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")


def test_stops_in_order_and_forwards_lines_with_the_name(start: Start, tmp_path: Path) -> None:
    up = start()
    wait_ready(up)
    up.terminate()
    _, err = up.communicate(timeout=20)
    assert up.returncode == 0
    assert [x for x in journal(tmp_path) if x.startswith("stopped")] == ["stopped c", "stopped b", "stopped a"]
    assert "a: hello from a" in err
    assert not (tmp_path / "run/up.json").exists()
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_starts_nothing_when_one_check_fails(start: Start, tmp_path: Path) -> None:
    up = start("b", "c")
    _, err = up.communicate(timeout=20)
    assert up.returncode == 2
    assert err.count("rules/bad.yml:3: is wrong") == 1  # two children say it, people read it once
    assert "nothing was started" in err
    assert not (tmp_path / "run/journal").exists()


def test_stopped_while_inputs_are_checked(start: Start, tmp_path: Path) -> None:
    process = start("slow")
    until((tmp_path / "run/checking").exists)
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_killed_child_is_back_within_a_second(start: Start, tmp_path: Path) -> None:
    up = start()
    wait_ready(up)
    for n in (1, 2):
        before = state(tmp_path)["processes"]["b"]["pid"]
        os.kill(before, signal.SIGKILL)
        assert until_started(tmp_path, "b", n + 1) < 1
    until(lambda: state(tmp_path)["processes"]["b"]["restarts"] == 2)
    b = state(tmp_path)["processes"]["b"]
    assert b["last_exit"] == "SIGKILL"
    assert b["state"] == "running"
    assert state(tmp_path)["processes"]["a"]["restarts"] == 0


def test_children_leave_with_a_killed_supervisor_and_a_new_one_starts(start: Start, tmp_path: Path) -> None:
    first = start()
    wait_ready(first)
    pids = [p["pid"] for p in state(tmp_path)["processes"].values()]
    first.kill()
    first.wait()
    second = start()
    wait_ready(second)
    until(lambda: all(gone(pid) for pid in pids))
    assert state(tmp_path)["pid"] == second.pid


def test_a_second_one_says_who_runs(start: Start, tmp_path: Path) -> None:
    first = start()
    wait_ready(first)
    second = start()
    _, err = second.communicate(timeout=20)
    assert second.returncode == 2
    assert f"pid {first.pid}" in err
    assert first.poll() is None


def test_stopped_while_a_child_is_down_starts_no_more(start: Start, tmp_path: Path) -> None:
    up = start()
    wait_ready(up)
    for n in range(4):
        os.kill(state(tmp_path)["processes"]["a"]["pid"], signal.SIGKILL)
        until_started(tmp_path, "a", n + 2)
    os.kill(state(tmp_path)["processes"]["a"]["pid"], signal.SIGKILL)
    up.terminate()
    up.communicate(timeout=20)
    assert up.returncode == 0
