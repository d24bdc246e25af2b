"""What this FlexCore is: its version, and the formats it reads. Needs no store and no server."""

import json
import platform
from typing import Annotated

import typer

from flexcore import __version__
from flexcore.cli.options import Options, options_of
from flexcore.cli.render import emit
from flexcore.model.errors import NotFound
from flexcore.model.values import JSON

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
def schema(context: typer.Context, name: Annotated[str, typer.Argument(metavar="NAME", help="workflow|test")]) -> None:
    """Print the JSON Schema of a format; editors check and complete with it."""
    document = _schema(name)
    emit(options_of(context), document, json.dumps(document, indent=2))


def _schema(name: str) -> dict[str, JSON]:
    match name:
        case "workflow":
            from flexcore.language.schema import workflow_schema  # large

            return workflow_schema()
        case "test":
            from flexcore.testing.workflow.schema import workflow_test_schema  # what is for tests is loaded for them

            return workflow_test_schema()
        case _:
            raise NotFound(f"there is no schema '{name}'", hint="schemas: workflow, test")
