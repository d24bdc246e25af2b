"""The live tree on a terminal: every step with its runtime, attempt, time and rows, drawn again a few times a second.

Loaded only when stderr is a terminal, because rich takes a tenth of a second to load.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flexcore.cli.board import Board, Row
from flexcore.cli.render import count, seconds
from flexcore.model.requests import WatchEvent

_REFRESHES_PER_SECOND = 10
_ITERATIONS_SHOWN = 6
_SEGMENT = re.compile(r"\[\d+\]|[^.\[]+")
_STYLES = {
    "succeeded": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("■", "yellow"),
    "skipped": ("-", "dim"),
    "suspended": ("…", "yellow"),
    "pending": ("↻", "yellow"),
    "waiting": ("·", "dim"),
}
_ENDED = frozenset({"succeeded", "failed", "cancelled", "skipped"})


class Node:
    """A place in the tree: a step, or what groups steps (an iteration, a branch)."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.row: Row | None = None
        self.children: dict[str, Node] = {}

    @property
    def status(self) -> str:
        """Give the step's status, or what its children's come to."""
        if self.row is not None:
            return self.row.status
        found = {child.status for child in self.children.values()}
        if found <= _ENDED:
            return next((each for each in ("failed", "cancelled", "succeeded") if each in found), "skipped")
        return "waiting" if found == {"waiting"} else "running"


class Live:
    """Draws the boards of all executions that are followed."""

    def __init__(self, *, transient: bool, clock: Callable[[], float] = time.time) -> None:
        self._boards: dict[str, Board] = {}
        self._clock = clock
        self._spinner = Spinner("dots")
        self._live = RichLive(
            console=Console(stderr=True),
            get_renderable=self.drawing,
            refresh_per_second=_REFRESHES_PER_SECOND,
            transient=transient,
            vertical_overflow="ellipsis",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def begin(self, id: str, document: Mapping[str, Any]) -> None:
        """Draw an execution from now on, with the steps that are still to come."""
        board = Board(id)
        board.seed(document)
        self._boards[id] = board

    def take(self, id: str, event: WatchEvent) -> None:
        """Take an event in; it is drawn with the next refresh."""
        self._boards[id].take(event)

    def tail(self, id: str, path: str) -> Sequence[str]:
        """Give the last lines that a step has written, as far as they were seen."""
        return self._boards[id].tail(path)

    def drawing(self) -> Group:
        """Draw everything as it is now."""
        now = self._clock()
        return Group(
            *(part for board in list(self._boards.values()) for part in (_title(board), self._grid(board, now)))
        )

    def _grid(self, board: Board, now: float) -> Table:
        # Over the whole width: only then a long note is what gives way, and not the columns before it.
        grid = Table.grid(padding=(0, 2, 0, 0), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, style="cyan")
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis", style="dim", ratio=1)
        for prefix, node in _walk(_tree(board)):
            grid.add_row(*self._cells(prefix, node, now))
        return grid

    def _cells(self, prefix: str, node: Node, now: float) -> tuple[Text, str, str, str, Text]:
        status, row = node.status, node.row
        mark, style = _STYLES.get(status, ("", ""))
        name = Text(prefix, style="dim")
        if mark:
            name.append(f"{mark} ", style)
        else:
            frame = self._spinner.render(now)
            name.append_text(frame if isinstance(frame, Text) else Text("•")).append(" ")
        name.append(node.label, "dim" if status in ("waiting", "skipped") else "")
        if row is None:
            return name, "", "", "", Text("")
        attempt = f" #{row.attempt}" if row.attempt > 1 else ""
        rows = f"{count(row.rows)} rows" if row.rows is not None else ""
        return (
            name,
            f"{row.runtime}{attempt}",
            seconds(row.elapsed(now)),
            rows,
            Text(_note(node), "red" if status == "failed" else ""),
        )


def _title(board: Board) -> Text:
    style = _STYLES.get(board.status, ("", "cyan"))[1]
    return Text.assemble((board.title, "bold"), "  ", (board.id, "dim"), "  ", (board.status, style))


def _note(node: Node) -> str:
    row = node.row
    if row is None:
        return ""
    iterations = [child for label, child in node.children.items() if label.startswith("[")]
    if iterations:
        done = sum(child.status in _ENDED for child in iterations)
        return f"{count(done)} of {count(row.total)}" if row.total is not None else f"{count(done)} done"
    if row.status == "running" and not row.note and row.tail:
        return row.tail[-1]
    return row.note


def _tree(board: Board) -> Node:
    root = Node("")
    for path, row in list(board.rows.items()):
        node = root
        for segment in _SEGMENT.findall(path):
            node = node.children.setdefault(segment, Node(segment))
        node.row = row
    return root


def _walk(node: Node, indent: str = "  ") -> Iterator[tuple[str, Node]]:
    shown = [_joined(child) for child in _shown(node)]
    for number, child in enumerate(shown, start=1):
        last = number == len(shown)
        is_top = indent == "  "
        yield (indent if is_top else f"{indent}{'└ ' if last else '├ '}"), child
        yield from _walk(child, f"{indent}  " if is_top else f"{indent}{'  ' if last else '│ '}")


def _joined(node: Node) -> Node:
    """Put an iteration or a branch of one step into one line: `[3].score`."""
    if node.row is not None or len(node.children) != 1:
        return node
    (child,) = node.children.values()
    joined = Node(f"{node.label}{'' if child.label.startswith('[') else '.'}{child.label}")
    joined.row, joined.children = child.row, child.children
    return _joined(joined)


def _shown(node: Node) -> list[Node]:
    """Leave out iterations that nobody needs to see: of many, those at work and the failed ones are shown."""
    children = list(node.children.values())
    if len(children) <= _ITERATIONS_SHOWN or not all(child.label.startswith("[") for child in children):
        return children
    interesting = [child for child in children if child.status not in ("succeeded", "skipped", "waiting")]
    return interesting[-_ITERATIONS_SHOWN:]
