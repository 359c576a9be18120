"""Docker through its command line: what a person at the keyboard would use, and the code under test does not."""

from __future__ import annotations

import shutil
import subprocess

from tocsin.errors import TocsinError

TIMEOUT_S = 60.0


def docker(*arguments: str, stdin: bytes = b"", timeout_s: float = TIMEOUT_S) -> str:
    """What the command printed, stripped. TocsinError with Docker's own words when it fails."""
    try:
        done = subprocess.run([program(), *arguments], input=stdin, capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as e:
        raise TocsinError(f"docker {arguments[0]} did not finish within {timeout_s:g} s") from e
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip() or f"exit code {done.returncode}"
        raise TocsinError(f"docker {' '.join(arguments[:2])}: {text}")
    return done.stdout.decode(errors="replace").strip()


def program() -> str:
    path = shutil.which("docker")
    if path is None:
        raise TocsinError("there is no docker command on the PATH; ./deploy/demo installs it")
    return path


def labelled(kind: str, label: str) -> dict[str, str]:
    """Id -> value of `label`, of every container, network or image (`kind`) that carries it."""
    listing = ["ps", "--all", "--no-trunc"] if kind == "container" else [kind, "ls", "--no-trunc"]
    ids = docker(*listing, "--quiet", "--filter", f"label={label}").split()
    if not ids:
        return {}
    labels = ".Config.Labels" if kind != "network" else ".Labels"
    rows = docker(kind, "inspect", "--format", f'{{{{.Id}}}} {{{{index {labels} "{label}"}}}}', *dict.fromkeys(ids))
    return dict(row.split(" ", 1) for row in rows.splitlines() if " " in row)
