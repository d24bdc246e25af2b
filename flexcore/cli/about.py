"""What this FlexCore is: its version, and the formats it reads. Needs no store and no server."""

import json
import platform
from typing import Annotated

import typer

from flexcore import __version__
from flexcore.cli.options import Options, options_of
from flexcore.cli.render import emit
from flexcore.model.errors import NotFound

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def version(context: typer.Context) -> None:
    """Print the version."""
    print_version(options_of(context))


def print_version(options: Options) -> None:
    """Print the version of FlexCore and of Python."""
    python = platform.python_version()
    emit(options, {"version": __version__, "python": python}, f"flexcore {__version__} (Python {python})")


@app.command()
def schema(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="workflow")]) -> None:
    """Print the JSON Schema of a format; editors check and complete with it."""
    from flexcore.language.schema import workflow_schema  # large

    if name != "workflow":
        raise NotFound(f"there is no schema '{name}'", hint="schemas: workflow")
    document = workflow_schema()
    emit(options_of(context), document, json.dumps(document, indent=2))
