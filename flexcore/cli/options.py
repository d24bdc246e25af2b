"""The options that every command has, before or after its name, and how a command gets hold of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import typer

from flexcore.model.errors import InvalidRequest

if TYPE_CHECKING:
    from flexcore.model.requests import ControlPlaneApi  # help is shown without loading the model


class Output(StrEnum):
    """How results are printed: for people, or as one document for programs."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was said on the command line beside the command. Without `server`, the command runs in this process."""

    server: str | None
    workspace: str
    output: Output
    config: Path | None
    connect: "Connect | None" = None  # tests bring their own control plane


Connect: TypeAlias = Callable[[Options], "AbstractAsyncContextManager[ControlPlaneApi]"]

COMMON = {
    "--server ADDR": "gRPC address of a server; without it, the command runs here. Also FLEXCORE_SERVER.",
    "--workspace W": "Workspace to work in. Also FLEXCORE_WORKSPACE. [default: default]",
    "--output text|json|yaml": "Form of the result. Also FLEXCORE_OUTPUT. [default: text]",
    "--config FILE": "Settings file. Also FLEXCORE_CONFIG.",
}
"""The common options for the help text. They are read here and not by the command tree: they may stand anywhere."""

_NAMES = frozenset(each.partition(" ")[0] for each in COMMON)


def options_of(context: typer.Context) -> Options:
    """Give the options of the command that runs."""
    options = context.obj
    if not isinstance(options, Options):
        raise TypeError(f"the command runs without its options: {options!r}")
    return options


def split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take the common options out of a command line, wherever they stand before a `--`; the last one of a name counts.

    >>> split(["workflow", "list", "--output", "json"])
    ({'--output': 'json'}, ['workflow', 'list'])
    """
    common: dict[str, str] = {}
    rest: list[str] = []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            return common, [*rest, argument, *waiting]
        if name not in _NAMES:
            rest.append(argument)
        elif equals:
            common[name] = value
        elif waiting:
            common[name] = waiting.pop(0)
        else:
            raise InvalidRequest(f"option {name} needs a value", hint=_hint(name))
    return common, rest


def asks_for_json(arguments: list[str], environ: Mapping[str, str]) -> bool:
    """Say whether a command line that cannot be read asks for JSON all the same, as far as can be seen."""
    return "--output json" in " ".join(arguments).replace("=", " ") or environ.get("FLEXCORE_OUTPUT") == Output.JSON


def options_from(common: Mapping[str, str], environ: Mapping[str, str], connect: Connect | None = None) -> Options:
    """Complete the common options from the environment. Raises InvalidRequest."""

    def value(name: str) -> str | None:
        return common.get(name) or environ.get(f"FLEXCORE_{name[2:].upper()}") or None

    output, config = value("--output") or Output.TEXT, common.get("--config")
    if output not in list(Output):
        raise InvalidRequest(f"'{output}' is no form of output", hint=_hint("--output"))
    return Options(
        server=value("--server"),
        workspace=value("--workspace") or "default",
        output=Output(output),
        config=Path(config) if config else None,
        connect=connect,
    )


def _hint(name: str) -> str:
    return next(f"{option}: {sentence}" for option, sentence in COMMON.items() if option.startswith(name))
