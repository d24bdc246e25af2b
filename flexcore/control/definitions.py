"""Versions of workflows: checked, stored with every file that belongs to them, and loaded ready to run.

A version is the hash of the document and of its files. Made on this machine, it runs in its author's folder as long
as the files it names are still the same there; otherwise in a copy unpacked from the store. So what is deployed needs
nobody's folder, and what is run by hand behaves as by hand.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from flexcore.analyzer.rules import rule_choice
from flexcore.analyzer.view import Facts
from flexcore.control.auditing import Call
from flexcore.control.facts import facts_of
from flexcore.control.places import Places
from flexcore.engine.ports import Loaded
from flexcore.language.native import check, parse, version_of
from flexcore.model.errors import Diagnostic, InvalidDefinition, LimitExceeded, NotFound
from flexcore.model.graph import Graph, build
from flexcore.model.requests import Bundle, check_bundle_path
from flexcore.model.template import Literal, MapTemplate
from flexcore.model.values import JSON, digest, reference
from flexcore.model.workflow import StepId, StepKind, Task, Workflow
from flexcore.store.read import Catalog, Definition
from flexcore.store.retention import KeptArtifacts

_REMEMBERED = 256

Schemas = Callable[[], Mapping[StepKind, Mapping[str, JSON]]]


@dataclass(slots=True)
class _Known:
    """A version that was read once. It never changes, but where it can run does."""

    definition: Definition
    graph: Graph
    projects: frozenset[str]
    facts: Mapping[StepId, Facts] | None = None  # read with the first folder that it runs in


@dataclass(slots=True)
class Definitions:
    """The library of one installation.

    What is guaranteed: whenever an execution begins, is resumed or is retried, the files that its version names have
    exactly the content that was deployed, in the author's folder or else in the store's own copy; only what lies in
    a `project` changes as it runs. A version that came from elsewhere has only that copy, which nobody edits. An
    execution that has begun in its author's folder stays there: each of its steps uses the files as they are when the
    step starts, so whoever edits them meanwhile changes the steps that are still to come.
    """

    catalog: Catalog
    artifacts: KeptArtifacts
    folder: Path  # where versions are unpacked
    now: Callable[[], datetime]
    schemas: Schemas
    most_bytes: int = 50_000_000
    _known: "OrderedDict[tuple[str, str, str], _Known]" = field(default_factory=OrderedDict)
    _places: Places = field(init=False)

    def __post_init__(self) -> None:
        self._places = Places(self.artifacts, self.folder)

    def check(self, bundle: Bundle) -> Sequence[Diagnostic]:
        """Find everything wrong with a workflow."""
        return self._checked(bundle)[1]

    async def deploy(
        self, bundle: Bundle, workspace: str, stored_as: str | None = None, call: Call | None = None
    ) -> tuple[Definition, bool]:
        """Store a version, and say whether it is new. Raises InvalidRequest, InvalidDefinition, LimitExceeded.

        `stored_as` is a name other than the document's own, for what must not show among the users' workflows. The line
        of an audited `call` is written with the version.
        """
        definition = self.examined(bundle, workspace)
        actor = "" if call is None else call.entry.actor
        definition = replace(definition, name=stored_as or definition.name, deployed_by=actor)
        stored = await self._version(definition)
        if call is not None:
            call.tell(definition.name, version=definition.version, new=stored is None)
        await self._store(bundle.files, is_known=stored is not None)
        await self.catalog.put(definition, None if call is None else call.handed_over())
        # The same content may now have another author's folder.
        self._known.pop((workspace, definition.name, definition.version), None)
        return definition, stored is None

    def examined(self, bundle: Bundle, workspace: str) -> Definition:
        """Say what deploying would store. Raises InvalidRequest, InvalidDefinition, LimitExceeded."""
        for name in (bundle.file_name, *bundle.files):
            check_bundle_path(name)
        workflow, problems = self._checked(bundle)
        if workflow is None or problems:
            raise InvalidDefinition(problems)
        size = sum(map(len, bundle.files.values()))
        if size > self.most_bytes:
            raise LimitExceeded(
                f"the files of workflow '{workflow.name}' have {size} bytes",
                limit=self.most_bytes,
                actual=size,
                hint="leave out data and environments; a project can be named in the settings instead",
            )
        files = {name: digest(data) for name, data in bundle.files.items()}
        return self._definition(workflow, bundle, files, workspace)

    async def load(self, workspace: str, name: str, version: str) -> Loaded:
        """Give a version ready to run, in a folder whose files are those of the version now. Raises NotFound."""
        known = await self._read(workspace, name, version)
        folder = await self._places.find(known.definition, known.projects)
        if known.facts is None:
            known.facts = await asyncio.to_thread(facts_of, known.graph, folder)
        files = frozenset(known.definition.files)
        return Loaded(graph=known.graph, folder=folder, facts=known.facts, files=files)

    async def graph(self, workspace: str, name: str, version: str) -> Graph:
        """Give a version to be looked at, without a folder to run in. Raises NotFound."""
        return (await self._read(workspace, name, version)).graph

    async def newest(self, workspace: str, name: str) -> str:
        """Give the version of a name that new executions take. Raises NotFound."""
        return await self.resolved(workspace, name, None)

    async def resolved(self, workspace: str, name: str, version: str | None) -> str:
        """Give a version in full that may be given by how it begins, or not at all. Raises NotFound, InvalidRequest."""
        return (await self.catalog.get(workspace, name, version)).version

    async def _read(self, workspace: str, name: str, version: str) -> _Known:
        key = (workspace, name, version)
        if (known := self._known.get(key)) is None:
            definition = await self.catalog.get(workspace, name, version)
            graph = build(parse(definition.text, definition.file_name))
            known = self._known[key] = _Known(definition, graph, frozenset(_projects(graph)))
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        return known

    async def _store(self, files: Mapping[str, bytes], *, is_known: bool) -> None:
        """Have the content of files stored, and left alone by whoever collects until the version names it."""
        if is_known:
            refs = [reference(data) for data in files.values()]
            with suppress(NotFound):
                await self.artifacts.keep(refs)
                return
        for data in files.values():
            await self.artifacts.put(data, format="file")

    def _checked(self, bundle: Bundle) -> tuple[Workflow | None, Sequence[Diagnostic]]:
        names = set(bundle.files)
        folders = {str(parent) for name in names for parent in Path(name).parents}

        def exists(name: str) -> bool:
            clean = str(Path(name))
            return clean in names or clean in folders

        return check(bundle.text, bundle.file_name, task_parameters=self.schemas(), files=exists)

    def _definition(self, workflow: Workflow, bundle: Bundle, files: Mapping[str, str], workspace: str) -> Definition:
        return Definition(
            workspace=workspace,
            name=workflow.name,
            version=version_of(bundle.text, files),
            text=bundle.text,
            file_name=bundle.file_name,
            description=workflow.description,
            runtimes=_runtimes(build(workflow)),
            files=files,
            origin=bundle.origin,
            created_at=self.now(),
        )

    async def _version(self, definition: Definition) -> Definition | None:
        versions = await self._versions_or_none(definition)
        return next((each for each in versions if each.version == definition.version), None)

    async def _versions_or_none(self, definition: Definition) -> Sequence[Definition]:
        names = {each.name for each in await self.catalog.list(definition.workspace)}
        if definition.name not in names:
            return ()
        return await self.catalog.versions(definition.workspace, definition.name)


def _projects(graph: Graph) -> set[str]:
    found: set[str] = set()
    for step in graph.steps.values():
        parameters = step.action.parameters if isinstance(step.action, Task) else None
        if isinstance(parameters, Literal) and isinstance(parameters.value, Mapping):
            found.add(str(parameters.value.get("project", "")))
        elif isinstance(parameters, MapTemplate):
            entry = dict(parameters.items).get("project")
            found.add(str(entry.value) if isinstance(entry, Literal) else "")
    return found - {""}


def _runtimes(graph: Graph) -> tuple[str, ...]:
    """Name the runtimes that a workflow's steps are pinned to, or that the rules would choose."""
    named = {
        step.runtime or rule_choice(step.action.kind, step.requirements)[0]
        for step in graph.steps.values()
        if isinstance(step.action, Task)
    }
    return tuple(sorted(named))
