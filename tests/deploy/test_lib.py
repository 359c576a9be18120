"""The installer installs only what is missing, and says what failed and where the whole output is."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
STUBS = """\
set -euo pipefail
. {root}/deploy/lib.sh
log={log}
apt-get() {{ echo "apt-get $*"; }}
env() {{ shift; "$@"; }}
apt-cache() {{ [ "$2" = new-name ] && echo "new-name | 1.0 | somewhere"; }}
dpkg-query() {{ [ "${{!#}}" = there ] && echo installed; }}
"""


def bash(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    text = STUBS.format(root=ROOT, log=tmp_path / "log") + script
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=30)


def installs(tmp_path: Path) -> list[str]:
    log = tmp_path / "log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.rsplit(" ", 1)[1] for line in lines if line.startswith("apt-get install")]


def test_what_is_there_is_left_alone_without_a_word(tmp_path: Path) -> None:
    done = bash(tmp_path, "packages 'a reason' there 'absent|there'")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert installs(tmp_path) == []


def test_installs_what_is_missing_under_the_name_that_this_release_has(tmp_path: Path) -> None:
    done = bash(tmp_path, "packages 'a reason' there 'old-name|new-name'")
    assert done.returncode == 0, done.stderr
    assert installs(tmp_path) == ["new-name"]
    assert "install new-name: a reason" in done.stderr


def test_a_failure_shows_the_last_lines_and_names_the_log(tmp_path: Path) -> None:
    done = bash(tmp_path, "quietly 'making tea' sh -c 'echo no water >&2; exit 7'")
    assert done.returncode == 1
    assert "no water" in done.stderr
    assert f"error: making tea failed; the whole output is in {tmp_path / 'log'}" in done.stderr


def test_says_that_it_needs_root(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for name in ("demo", "test", "up"):
        done = subprocess.run([ROOT / "deploy" / name], env=environ, capture_output=True, text=True, timeout=30)
        assert done.returncode == 1
        assert "must run as root" in done.stderr
        assert done.stdout == ""
