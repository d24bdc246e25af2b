"""Reads the pipelines of a Meltano project: its jobs, its schedules, and what their words mean. Pure.

Only what an import needs, each with its place in the text. What a plugin does and how it is set up stays in the
project and is the business of the runtime.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import Entry, ListNode, MapNode, Node, ScalarNode
from flexcore.model.errors import Diagnostic, InvalidDefinition
from flexcore.model.template import Position

MAPPING = "mappings"
"""The type of a mapping: a set of rules of a mapper, named by a job like a plugin."""

_DBT_TYPES = ("utilities", "transformers")


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a project."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands."""

    file: str
    position: Position


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a job: a plugin, a mapping, or `plugin:command`."""

    text: str
    place: Place

    @property
    def plugin(self) -> str:
        """The part before the colon."""
        return self.text.partition(":")[0]

    @property
    def command(self) -> str:
        """The part behind the colon."""
        return self.text.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Job:
    """Words that run one after the other."""

    name: str
    place: Place
    words: tuple[Word, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A time table for a job, or in the older form for one tap and target. `state_id` is the older form's own."""

    name: str
    place: Place
    interval: str
    job: str = ""
    words: tuple[Word, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    state_id: str = ""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plugin or mapping, by its type in meltano.yml, and the commands that the project itself defines for it."""

    name: str
    type: str
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipelines:
    """What a project says about what runs. `problems` did not keep it from being read."""

    jobs: Sequence[Job]
    schedules: Sequence[Schedule]
    plugins: Mapping[str, Plugin]
    environments: Sequence[str]
    default_environment: str | None
    suffixes: Mapping[str, str]  # of state ids, by environment
    problems: Sequence[Diagnostic]

    @property
    def dbt(self) -> str | None:
        """The plugin that a `dbt` step runs: the first of its kind."""
        return next(
            (each.name for each in self.plugins.values() if each.type in _DBT_TYPES and "dbt" in each.name), None
        )


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    root: Mapping[str, Entry]

    def place(self, node: Node | Entry) -> Place:
        return Place(self.name, node.position)

    def list(self, key: str) -> list[Node]:
        return _items(self.root.get(key))


def looks_like_project(main: Source) -> bool:
    """Tell a project by its keys: a workflow has steps, a project has plugins."""
    root, _ = compose(main.text, Findings(main.name))
    keys = _entries(root).keys() if root is not None else frozenset()
    return "plugins" in keys and "steps" not in keys


def included(main: Source) -> list[str]:
    """Give the patterns of the files that belong to a project. Raises InvalidDefinition."""
    return [text for node in _file(main, []).list("include_paths") if (text := _text(node))]


def read_pipelines(sources: Sequence[Source]) -> Pipelines:
    """Read a project from its files, meltano.yml first. Raises InvalidDefinition when one cannot be read."""
    problems: list[Diagnostic] = []
    files = [_file(each, problems) for each in sources]
    jobs = [job for each in files for job in _jobs(each)]
    return Pipelines(
        jobs=jobs,
        schedules=[schedule for each in files for schedule in _schedules(each)],
        plugins={plugin.name: plugin for each in files for plugin in _plugins(each)},
        environments=[name for each in files for name, _ in _environments(each)],
        default_environment=_value(files[0].root, "default_environment") or None,
        suffixes={
            name: suffix
            for each in files
            for name, entries in _environments(each)
            if (suffix := _value(entries, "state_id_suffix"))
        },
        problems=problems,
    )


def _file(source: Source, problems: list[Diagnostic]) -> _File:
    findings = Findings(source.name)
    root, _ = compose(source.text, findings)
    if not isinstance(root, MapNode):
        place = (source.name, 1, 1)
        raise InvalidDefinition(findings.sorted() or [Diagnostic(*place, "this is no Meltano project: not a mapping")])
    problems += findings.sorted()
    return _File(source.name, _entries(root))


def _jobs(file: _File) -> Iterator[Job]:
    for node in file.list("jobs"):
        entries = _entries(node)
        tasks = entries.get("tasks")
        words = tuple(_words(file, tasks.value)) if tasks is not None else ()
        yield Job(_value(entries, "name"), file.place(node), words)


def _words(file: _File, node: Node) -> Iterator[Word]:
    """Split texts at blanks and lay lists flat, as Meltano does."""
    match node:
        case ListNode(items=items):
            for each in items:
                yield from _words(file, each)
        case ScalarNode():
            yield from (Word(each, file.place(node)) for each in str(node.value).split())
        case MapNode():
            return


def _schedules(file: _File) -> Iterator[Schedule]:
    for node in file.list("schedules"):
        entries = _entries(node)
        job = _value(entries, "job")
        name = _value(entries, "name")
        yield Schedule(
            name=name,
            place=file.place(node),
            interval=_value(entries, "interval"),
            job=job,
            words=() if job else tuple(_elt(file, entries)),
            env={key: _text(entry.value) for key, entry in _inner(entries, "env").items()},
            state_id="" if job else name,
        )


def _elt(file: _File, entries: Mapping[str, Entry]) -> Iterator[Word]:
    transform = _value(entries, "transform")
    keys = ("extractor", "loader") if transform != "only" else ()
    yield from (Word(_text(entries[key].value), file.place(entries[key])) for key in keys if key in entries)
    if transform in ("run", "only"):
        yield Word("dbt:run", file.place(entries["transform"]))


def _plugins(file: _File) -> Iterator[Plugin]:
    for type_, entry in _inner(file.root, "plugins").items():
        for node in _items(entry):
            entries = _entries(node)
            commands = {key: _command(each.value) for key, each in _inner(entries, "commands").items()}
            yield Plugin(_value(entries, "name"), type_, commands)
            for mapping in _items(entries.get(MAPPING)):
                yield Plugin(_value(_entries(mapping), "name"), MAPPING)


def _command(node: Node) -> str:
    return _value(_entries(node), "args") if isinstance(node, MapNode) else _text(node)


def _environments(file: _File) -> list[tuple[str, Mapping[str, Entry]]]:
    found = [_entries(node) for node in file.list("environments")]
    return [(_value(entries, "name"), entries) for entries in found if "name" in entries]


def _entries(node: Node) -> Mapping[str, Entry]:
    return {entry.key: entry for entry in node.entries} if isinstance(node, MapNode) else {}


def _inner(entries: Mapping[str, Entry], key: str) -> Mapping[str, Entry]:
    return _entries(entries[key].value) if key in entries else {}


def _items(entry: Entry | None) -> list[Node]:
    return list(entry.value.items) if entry is not None and isinstance(entry.value, ListNode) else []


def _value(entries: Mapping[str, Entry], key: str) -> str:
    return _text(entries[key].value) if key in entries else ""


def _text(node: Node) -> str:
    match node:
        case ScalarNode(value=bool() as value):
            return str(value).lower()
        case ScalarNode(value=value) if value is not None:
            return str(value)
        case _:
            return ""
