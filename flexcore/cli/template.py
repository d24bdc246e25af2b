"""`flexcore template …`: the library and the settings' templates, always local."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flexcore.cli.library import Template, copy, template, templates
from flexcore.cli.options import options_of
from flexcore.cli.render import emit, listing, pretty, table
from flexcore.cli.session import settings_of

if TYPE_CHECKING:
    from flexcore.settings import Settings

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The library of ready workflows."
)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the templates."""
    options = options_of(context)
    settings = settings_of(options)
    items = [each.document(_usable(settings)) for each in templates(settings.workflow_templates)]
    listing(options, items, ("name", "runtime", "summary", "requires", "origin", "status"), "no templates")


@app.command()
def show(context: typer.Context, name: Annotated[str, typer.Argument(metavar="TEMPLATE")]) -> None:
    """Describe a template and its inputs."""
    options = options_of(context)
    settings = settings_of(options)
    found = template(name, settings.workflow_templates)
    lines = [f"{found.name}: {found.summary}", ""]
    lines += [found.description.strip(), ""] if found.description else []
    emit(options, found.document(_usable(settings)), [*lines, *_inputs(found)])


@app.command()
def use(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="TEMPLATE")],
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Where to; ./TEMPLATE by default.")] = None,
) -> None:
    """Copy a template into a new folder. Never overwrites."""
    options = options_of(context)
    target = folder or Path(name)
    copy(template(name, settings_of(options).workflow_templates), target)
    text = f"copied template {name} to {target}; run it with: flexcore workflow execute {target}"
    emit(options, {"template": name, "folder": str(target)}, text)


def _usable(settings: "Settings") -> set[str]:
    enabled = {name: each.type for name, each in settings.runtimes.items() if each.enabled}
    return {*enabled, *enabled.values()}


def _inputs(found: Template) -> list[str]:
    if not isinstance(found.parameters, dict) or not found.parameters:
        return ["no inputs"]
    schemas = {name: each if isinstance(each, dict) else {} for name, each in found.parameters.items()}
    rows = [
        (name, _type(each), pretty(each["default"]) if "default" in each else "required", each.get("description", ""))
        for name, each in schemas.items()
    ]
    return table(("INPUT", "TYPE", "DEFAULT", "MEANING"), rows)


def _type(schema: dict[str, Any]) -> str:
    choices = schema.get("enum")
    return " | ".join(map(str, choices)) if isinstance(choices, list) else str(schema.get("type", "any"))
