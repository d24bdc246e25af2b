"""The command `flexcore`: the tree of commands, loaded by noun when asked for, and the shell around them.

Importing this module must stay cheap: help is shown without loading anything but the command line's own library.
Nobody sees a traceback who did not ask for one with `FLEXCORE_DEBUG=1`.
"""

import difflib
import gc
import os
import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from flexcore.cli.options import COMMON, Connect, Options, Output, asks_for_json, options_from, split

_OBJECTS_BETWEEN_COLLECTIONS = 20_000

_COMMANDS = {
    "workflow": ("flexcore.cli.workflow", "Define and run workflows."),
    "execution": ("flexcore.cli.execution", "Look at executions in depth."),
    "runtime": ("flexcore.cli.runtime", "The places that run work."),
    "template": ("flexcore.cli.template", "The library of ready workflows."),
    "import": ("flexcore.cli.importing", "Make workflows of a Meltano project."),
    "meltano": ("flexcore.cli.meltano", "The jobs and bookmarks of a Meltano project."),
    "server": ("flexcore.cli.operation", "Serve the HTTP and gRPC APIs."),
    "gc": ("flexcore.cli.upkeep", "Remove what is old and needed by nobody."),
    "audit": ("flexcore.cli.upkeep", "Say who changed what."),
    "verify": ("flexcore.cli.operation", "Prove that the store holds together."),
    "doctor": ("flexcore.cli.operation", "Check this machine and say what is missing."),
    "config": ("flexcore.cli.operation", "The settings in force."),
    "schema": ("flexcore.cli.about", "Print a JSON Schema, for editors."),
    "version": ("flexcore.cli.about", "Print the version."),
}


class _LazyGroup(TyperGroup):
    """Knows the names of its commands and loads the module of the one that is called."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            near = difflib.get_close_matches(cmd_name, _COMMANDS, n=1)
            ctx.fail(f"No such command '{cmd_name}'." + (f" Did you mean '{near[0]}'?" if near else ""))
        module = import_module(_COMMANDS[cmd_name][0])
        loaded: Any = get_command(module.app)
        return loaded.commands.get(cmd_name, loaded)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Options, before or after a command"):
            formatter.write_dl([*COMMON.items(), ("--help", "Say what a command does.")])
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in _COMMANDS.items()])


app = typer.Typer(
    cls=_LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
)


@app.callback()
def _root() -> None:
    """Run durable workflows on Meltano, Ray, Kubernetes and plain processes."""


def run(arguments: list[str], connect: Connect | None = None) -> int:
    """Run one command line and give its exit code."""
    options: Options | None = None
    try:
        common, rest = split(arguments)
        options = options_from(common, os.environ, connect)
        if rest in (["version"], ["--version"]):
            # Parsing the smallest command line loads pydantic; this answer is asked for by scripts, often.
            from flexcore.cli.about import print_version

            print_version(options)
            return 0
        code: object = get_command(app)(rest, prog_name="flexcore", obj=options, standalone_mode=False)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except Exception as error:  # the shell: whatever it is, a person reads it
        from flexcore.cli.failures import show  # loads what help does without

        as_json = asks_for_json(arguments, os.environ) if options is None else options.output is Output.JSON
        return show(error, as_json=as_json)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Start here: the console script."""
    # Read when gRPC is first loaded. Its own lines are for its developers; ours say what is wrong.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # A command makes many objects that stay, and ends soon: looking through them at the default rate costs a tenth.
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has left; without this the interpreter would complain about it while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
