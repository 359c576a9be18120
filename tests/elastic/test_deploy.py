"""deploy/elasticsearch says what is missing and harms nothing; that it starts a node is what all other tests use."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy" / "elasticsearch"


def call(script: str, *args: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    return subprocess.run([DEPLOY / script, *args], capture_output=True, text=True, env=environment, check=False)


def test_wrong_use_is_told() -> None:
    for script in ("start", "stop"):
        answer = call(script)
        assert answer.returncode == 2
        assert f"usage: {script} HOME" in answer.stderr


def test_missing_tools_are_named(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "cat", "dirname", "mkdir", "sed", "env"):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    answer = call("start", tmp_path / "home", "1", PATH=str(tools))
    assert answer.returncode == 1
    assert "apt-get install openjdk-17-jdk-headless maven curl util-linux" in answer.stderr


def test_port_in_use_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answer = call("start", tmp_path, port)
    assert answer.returncode == 1
    assert f"port {port} is in use" in answer.stderr


def test_stop_ends_no_process_of_others(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / "pid").write_text(str(other.pid))
        assert call("stop", tmp_path).returncode == 0
        assert other.poll() is None
        other.kill()
    assert not (tmp_path / "pid").exists()


def test_stop_without_a_node_is_no_error(tmp_path: Path) -> None:
    assert call("stop", tmp_path).returncode == 0
