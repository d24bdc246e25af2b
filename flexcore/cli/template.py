"""`flexcore template …`: the library, always local."""

from pathlib import Path
from typing import Annotated

import typer

from flexcore.cli.library import copy, template, templates
from flexcore.cli.options import options_of
from flexcore.cli.render import emit, listing, pretty

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The library of ready workflows."
)


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the templates."""
    items = [each.document() for each in templates()]
    listing(options_of(context), items, ("name", "runtime", "summary"), "no templates")


@app.command()
def show(context: typer.Context, name: Annotated[str, typer.Argument(metavar="TEMPLATE")]) -> None:
    """Describe a template and its parameters."""
    found = template(name)
    lines = [
        f"{found.name}: {found.summary}",
        "",
        found.description.strip(),
        "",
        "parameters",
        pretty(found.parameters),
    ]
    emit(options_of(context), found.document(), lines)


@app.command()
def use(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="TEMPLATE")],
    folder: Annotated[Path | None, typer.Argument(metavar="[DIR]", help="Where to; ./TEMPLATE by default.")] = None,
) -> None:
    """Copy a template into a new folder. Never overwrites."""
    target = folder or Path(name)
    copy(template(name), target)
    text = f"copied template {name} to {target}; run it with: flexcore workflow execute {target}"
    emit(options_of(context), {"template": name, "folder": str(target)}, text)
