"""How an error looks to the person who typed the command, and the exit code it means."""

import json
import os
import sys
import traceback
from dataclasses import asdict
from typing import Any

import typer

from flexcore.api.errors import diagnostics_of, exit_code
from flexcore.cli.render import clean
from flexcore.model.errors import FlexCoreError, InvalidRequest, NoFeasibleRuntime

_UsageError: Any = typer.BadParameter.__mro__[1]  # what is wrong with a command line; its name is not exported


def show(error: Exception, *, as_json: bool) -> int:
    """Print an error to stderr, and as a document to stdout where one is expected there; give the exit code."""
    cause = _first(error)
    if os.environ.get("FLEXCORE_DEBUG"):
        traceback.print_exception(error)
    if isinstance(cause, BrokenPipeError):
        return 1
    if isinstance(cause, typer.Abort):
        sys.stderr.write("Aborted!\n")
        return 1
    if isinstance(cause, _UsageError):
        cause.show()
        cause = _as_ours(cause)
        if as_json:
            _print_document(cause)
        return exit_code(cause)
    if as_json:
        _print_document(cause)
    sys.stderr.write("".join(f"{clean(line)}\n" for line in _lines(cause)))
    return exit_code(cause) if isinstance(cause, FlexCoreError) else 1


def _print_document(error: BaseException) -> None:
    sys.stdout.write(json.dumps({"error": _document(error)}, indent=2, ensure_ascii=False) + "\n")


def _as_ours(error: Any) -> InvalidRequest:
    """Say as one of ours what is wrong with a command line. Where a command is missing, the error is the whole help."""
    sentence = " ".join(error.format_message().strip().partition("\n\n")[0].split())
    path = "flexcore" if error.ctx is None else error.ctx.command_path
    return InvalidRequest(sentence, hint=f"{path} --help says how it is used")


def _first(error: BaseException) -> BaseException:
    """Look for one of ours inside what tasks that ran side by side came to."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first(each) for each in error.exceptions]
    return next((each for each in leaves if isinstance(each, FlexCoreError)), leaves[0])


def _lines(error: BaseException) -> list[str]:
    if not isinstance(error, FlexCoreError):
        return [
            f"internal error: {type(error).__name__}: {error}",
            "  this is a bug, please report it; FLEXCORE_DEBUG=1 shows where it happened",
        ]
    lines = [str(each) for each in diagnostics_of(error) if each.line] or [f"error: {error.message}"]
    if isinstance(error, NoFeasibleRuntime):
        lines += [f"  {runtime}: {reason}" for runtime, reason in error.reasons.items()]
    return [*lines, f"  hint: {error.hint}"] if error.hint else lines


def _document(error: BaseException) -> dict[str, object]:
    if not isinstance(error, FlexCoreError):
        return {"code": "internal", "message": f"{type(error).__name__}: {error}", "hint": "please report this"}
    found = [asdict(each) for each in diagnostics_of(error)]
    document: dict[str, object] = {"code": error.code, "message": error.message, "hint": error.hint}
    return {**document, "diagnostics": found} if found else document
