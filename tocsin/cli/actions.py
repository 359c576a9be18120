"""`tocsin actions list`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import typer

from tocsin.cli._options import Json

if TYPE_CHECKING:
    from playbooks.action import Action

app = typer.Typer(help="Actions: what the steps of playbooks can do.")


@app.command("list")
def list_actions(as_json: Json = False) -> None:
    """All actions there are: what each does, whether it changes a container, can be taken back, and its parameters.

    [bold]Examples:[/] tocsin actions list
    tocsin actions list --json | jq 'select(.undoable)'
    """
    from playbooks import action
    from tocsin.terminal import print_json, print_text

    found = [_described(name, action.load(name)) for name in action.names()]
    if as_json:
        for described in found:
            print_json(described)
        return
    for described in found:
        print_text(f"{described['name']}  ({_traits(described)})", style="bold")
        print_text(f"    {described['does']}")
        for name, parameter in described["parameters"].items():
            print_text(f"    {name}: {_words(parameter)}", style="dim")


def _described(name: str, action: Action) -> dict[str, Any]:
    """Parameters as JSON Schema has them; `required` is put with each."""
    schema = action.parameters.model_json_schema()
    required = schema.get("required", [])
    return {
        "name": name,
        "does": " ".join((inspect.getdoc(action) or "").partition("\n\n")[0].split()),
        "mutates": action.mutates,
        "undoable": action.undoable,
        "needs_container": action.needs_container,
        "parameters": {
            key: {"required": key in required, **value} for key, value in schema.get("properties", {}).items()
        },
    }


def _traits(described: dict[str, Any]) -> str:
    if not described["mutates"]:
        return "changes no container"
    return f"changes the container, {'can' if described['undoable'] else 'CANNOT'} be taken back"


def _words(parameter: dict[str, Any]) -> str:
    kinds = [option.get("type", "object") for option in parameter.get("anyOf", [parameter])]
    default = parameter.get("default")
    need = "required" if parameter["required"] else "optional" if default is None else f"default {default}"
    description = parameter.get("description")
    return f"{' or '.join(k for k in kinds if k != 'null')}, {need}{f'. {description}' if description else ''}"
