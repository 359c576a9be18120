"""Who may import whom, read from the source. The reasons are in docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ecs_mappings", "store", "elastic", "sensor", "forwarder", "correlator", "playbooks", "tocsin")
FLOOR = {"tocsin.errors", "tocsin.strict_yaml", "tocsin.link", "tocsin.logs", "tocsin.printable"}
"""May be imported by every package; import nothing of ours but each other."""

ALLOWED: dict[str, set[str]] = {
    "ecs_mappings": set(),
    "store": {"ecs_mappings"},
    "elastic": {"ecs_mappings", "store"},
    "sensor": {"ecs_mappings"},
    "forwarder": {"ecs_mappings"},
    "correlator": {"ecs_mappings"},
    "playbooks": {"ecs_mappings"},
    "tocsin": set(PACKAGES),
}

ONE_PLACE: dict[str, set[str]] = {
    "bcc": {"sensor/sources/bcc.py"},
    "docker": {"sensor/sources/docker.py", "playbooks/daemon.py"},
    "elasticsearch": {"elastic/"},
    "fastapi": {"tocsin/link.py"},
    "uvicorn": {"tocsin/link.py"},
    "sigma": {"correlator/"},
    "re2": {"correlator/"},
    "httpx": {"playbooks/delivery.py"},
    "typer": {"tocsin/cli/"},
}
"""Third-party module -> the only files (or folders) that import it."""


def modules() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def imports(path: Path) -> Iterator[str]:
    """Dotted names of everything the file imports, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    relative = str(path.relative_to(ROOT))
    package = relative.split("/")[0]
    module = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for name in imports(path):
        top = name.split(".")[0]
        if top not in PACKAGES or top == package != "tocsin":
            continue
        on_floor = any(name == floor or name.startswith(f"{floor}.") for floor in FLOOR)
        if module in FLOOR:
            assert on_floor or name == "tocsin", f"{relative} is on the floor and imports {name}"
        elif not on_floor and name != "tocsin":
            assert top in ALLOWED[package], f"{relative} imports {name}; {package} may import {ALLOWED[package]}"


@pytest.mark.parametrize("library", sorted(ONE_PLACE))
def test_each_outside_library_has_one_place(library: str) -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in modules()
        if any(name.split(".")[0] == library for name in imports(path))
    }
    strangers = {user for user in users if not any(user.startswith(place) for place in ONE_PLACE[library])}
    assert not strangers, f"{library} may be imported only in {ONE_PLACE[library]}"
    assert users, f"nobody imports {library}: delete it from pyproject.toml and from here"


def test_every_probe_has_its_twin() -> None:
    kernel_side = {path.stem for path in (ROOT / "bpf").glob("*.c")}
    user_side = {path.stem for path in (ROOT / "sensor/probes").glob("*.py")} - {"__init__"}
    assert kernel_side == user_side
    assert kernel_side


def test_no_test_package_shadows_a_real_one() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))
