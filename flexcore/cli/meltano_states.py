"""`flexcore meltano state …`: where the next run of a tap goes on, and that place changed with care. Always local.

The work is done by a program of the Meltano runtime (`flexcore_meltano.states`), which knows its locks; here a change
is shown before it is made, and made only when somebody says yes.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from flexcore.cli.meltano_project import project_folder, runtime_options
from flexcore.cli.options import Options, Output, options_of
from flexcore.cli.parameters import json_argument
from flexcore.cli.render import clean, emit, listing, pretty, say, table
from flexcore.model.errors import Conflict, InternalError, InvalidRequest, NotFound, RuntimeUnavailable

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The bookmarks of a Meltano project."
)

_PROGRAM = "flexcore_meltano.states"
_ERRORS = {"not_found": NotFound, "conflict": Conflict, "unavailable": RuntimeUnavailable, "invalid": InvalidRequest}

IdArgument = Annotated[str, typer.Argument(metavar="STATE_ID", help="Such as dev:tap-orders-to-target-postgres.")]
ProjectOption = Annotated[str, typer.Option(metavar="DIR", help="The project's folder.")]
EnvironmentOption = Annotated[str | None, typer.Option(metavar="E", help="Environment of the project.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Make the change without asking.")]


@app.command("list")
def list_(context: typer.Context, project: ProjectOption = ".", environment: EnvironmentOption = None) -> None:
    """List the state ids of a project, and whether a run is using them."""
    options = options_of(context)
    found = _asked(options, project, environment, {"action": "list"})
    listing(options, found["states"], ("id", "busy"), "the project has no states yet")


@app.command()
def get(
    context: typer.Context, id: IdArgument, project: ProjectOption = ".", environment: EnvironmentOption = None
) -> None:
    """Print a state as the tap gets it."""
    options = options_of(context)
    state = _asked(options, project, environment, {"action": "get", "id": id})["state"]
    emit(options, {"singer_state": state}, pretty({"singer_state": state}))


@app.command()
def preview(
    context: typer.Context, id: IdArgument, project: ProjectOption = ".", environment: EnvironmentOption = None
) -> None:
    """Say from where the next run would go on, stream by stream. A stream that is not listed starts anew."""
    options = options_of(context)
    found = _asked(options, project, environment, {"action": "preview", "id": id})
    rows = [
        (each["stream"], json.dumps(each["partition"]) if each["partition"] else "", each["key"], _start(each))
        for each in found["starts"]
    ]
    emit(
        options, found, table(("STREAM", "PARTITION", "KEY", "STARTS FROM"), rows) if rows else "no bookmarks: all anew"
    )


@app.command("set")
def set_(
    context: typer.Context,
    id: IdArgument,
    state: Annotated[str, typer.Argument(metavar="JSON|@FILE", help="A state, as `get` prints it.")],
    project: ProjectOption = ".",
    environment: EnvironmentOption = None,
    yes: Yes = False,
) -> None:
    """Replace a state as a whole."""
    request = {"action": "set", "id": id, "state": json_argument(state, "STATE")}
    _change(options_of(context), project, environment, request, yes)


@app.command()
def rewind(
    context: typer.Context,
    id: IdArgument,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    to: Annotated[str, typer.Option("--to", metavar="VALUE", help="A number, or a time such as 2026-01-31.")],
    key: Annotated[str | None, typer.Option(metavar="K", help="Which, where a stream has several bookmarks.")] = None,
    project: ProjectOption = ".",
    environment: EnvironmentOption = None,
    yes: Yes = False,
) -> None:
    """Set a stream's bookmark back, so that the next run reads again what came after."""
    request = {"action": "rewind", "id": id, "stream": stream, "value": to, "key": key}
    _change(options_of(context), project, environment, request, yes)


@app.command()
def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(metavar="FROM", help="State id to copy.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="State id that gets the copy.")],
    project: ProjectOption = ".",
    environment: EnvironmentOption = None,
    yes: Yes = False,
) -> None:
    """Give one state id the bookmarks of another."""
    _change(options_of(context), project, environment, {"action": "copy", "id": target, "from": source}, yes)


@app.command()
def clear(
    context: typer.Context,
    id: IdArgument,
    project: ProjectOption = ".",
    environment: EnvironmentOption = None,
    yes: Yes = False,
) -> None:
    """Remove a state: the next run reads everything."""
    _change(options_of(context), project, environment, {"action": "clear", "id": id}, yes)


def _change(options: Options, project: str, environment: str | None, request: Mapping[str, Any], yes: bool) -> None:
    """Show what would change, ask, and make exactly that change. What was there is kept in a file."""
    shown = _asked(options, project, environment, request)
    if not shown["changes"]:
        emit(options, shown, f"{shown['id']}: nothing to change")
        return
    if not yes:
        for line in _difference(shown):
            say(line)
        _insist_on_yes(options, str(shown["id"]))
    made = _asked(options, project, environment, {**request, "apply": True, "expected": shown["before"]})
    kept = f"the former state is in {made['backup']}" if made["backup"] else "there was no state before"
    emit(options, made, [*(_difference(made) if yes else ()), f"changed {made['id']}; {kept}"])


def _insist_on_yes(options: Options, id: str) -> None:
    if options.output is not Output.TEXT or not sys.stdin.isatty():
        raise InvalidRequest(f"nothing was changed in {id}", hint="look at the change, then say so with --yes")
    if not typer.confirm(f"change {id}?", err=True):
        raise InvalidRequest(f"nothing was changed in {id}")


def _difference(change: Mapping[str, Any]) -> Iterator[str]:
    for each in change["changes"]:
        where = clean(each["where"]) or "state"
        yield f"- {where}: {clean(json.dumps(each['before'], ensure_ascii=False))}"
        yield f"+ {where}: {clean(json.dumps(each['after'], ensure_ascii=False))}"


def _start(start: Mapping[str, Any]) -> str:
    value = "the beginning" if start["value"] is None else clean(str(start["value"]))
    return f"{value} (a run was interrupted behind it)" if start["unfinished"] else value


def _asked(options: Options, project: str, environment: str | None, request: Mapping[str, Any]) -> dict[str, Any]:
    """Let the runtime's program answer. Raises what its error means."""
    known = runtime_options(options)
    whole = {
        **request,
        "project": str(project_folder(project, options).absolute()),
        "environment": environment,
        "fallback": known.get("environment"),
        "executable": str(known["executable"]) if known.get("executable") else None,
    }
    # -P: a module in the working folder must not take the place of a library.
    argv = [sys.executable, "-P", "-m", _PROGRAM]
    done = subprocess.run(argv, input=json.dumps(whole), capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InternalError(f"{_PROGRAM} ended with {done.returncode}: {last}") from None
    if error := answer.get("error"):
        raise _ERRORS[error["code"]](error["message"], hint=error["hint"])
    return answer
