"""Progress on stderr while executions run: a live tree on a terminal, plain lines anywhere else."""

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from flexcore.cli.board import Board
from flexcore.cli.options import Options, Output
from flexcore.cli.render import has_colours
from flexcore.model.requests import WatchEvent


class Display(Protocol):
    """Shows executions from entering it to leaving it."""

    def __enter__(self) -> Self:
        """Begin."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, leaving the terminal as it was."""
        ...

    def begin(self, id: str, document: Mapping[str, Any]) -> None:
        """Show an execution from now on."""
        ...

    def take(self, id: str, event: WatchEvent) -> None:
        """Show that something happened."""
        ...

    def tail(self, id: str, path: str) -> Sequence[str]:
        """Give the last lines that a step has written, as far as they were seen."""
        ...


def display(options: Options) -> Display:
    """Choose how progress is shown. The tree goes when it ends if a summary follows on the same terminal."""
    if not has_colours(sys.stderr):
        return Lines()
    from flexcore.cli.live import Live  # brings rich

    return Live(transient=sys.stdout.isatty() and options.output is Output.TEXT)


class Lines:
    """One line per transition, and every line that a step writes."""

    def __init__(self) -> None:
        self._boards: dict[str, Board] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stderr.flush()

    def begin(self, id: str, document: Mapping[str, Any]) -> None:
        """Name the execution."""
        self._boards[id] = Board(id)
        self._write(f"{document.get('workflow', '')}  {id}")

    def take(self, id: str, event: WatchEvent) -> None:
        """Write what is worth a line."""
        told = self._boards[id].take(event)
        name = f"{id}  " if len(self._boards) > 1 else ""
        for line in told.lines:
            self._write(f"{name}{told.path} | {line}")
        if told.news:
            self._write(f"{event.at.astimezone():%H:%M:%S}  {name}{told.news}")

    def tail(self, id: str, path: str) -> Sequence[str]:
        """Give the last lines that a step has written, as far as they were seen."""
        return self._boards[id].tail(path)

    def _write(self, line: str) -> None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
