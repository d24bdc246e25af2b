"""Versions of workflows: checked, stored with every file that belongs to them, and loaded ready to run.

A version is the hash of the document and of its files. Made on this machine, it runs in its author's folder as long
as the files it names are still the same there; otherwise in a copy unpacked from the store. So what is deployed needs
nobody's folder, and what is run by hand behaves as by hand.
"""

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp

from flexcore.analyzer.rules import rule_choice
from flexcore.engine.ports import Loaded
from flexcore.language.native import check, parse, version_of
from flexcore.model.errors import Diagnostic, InvalidDefinition, LimitExceeded
from flexcore.model.graph import Graph, build
from flexcore.model.requests import Bundle
from flexcore.model.template import Literal, MapTemplate
from flexcore.model.values import JSON, Ref, digest
from flexcore.model.workflow import StepKind, Task, Workflow
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.read import Catalog, Definition

_REMEMBERED = 256

Schemas = Callable[[], Mapping[StepKind, Mapping[str, JSON]]]


@dataclass(slots=True)
class Definitions:
    """The library of one installation."""

    catalog: Catalog
    artifacts: ArtifactStore
    folder: Path  # where versions are unpacked
    now: Callable[[], datetime]
    schemas: Schemas
    most_bytes: int = 50_000_000
    _loaded: "OrderedDict[tuple[str, str, str], Loaded]" = field(default_factory=OrderedDict)

    def check(self, bundle: Bundle) -> Sequence[Diagnostic]:
        """Find everything wrong with a workflow."""
        return self._checked(bundle)[1]

    async def deploy(self, bundle: Bundle, workspace: str, stored_as: str | None = None) -> tuple[Definition, bool]:
        """Store a version, and say whether it is new. Raises InvalidDefinition, LimitExceeded.

        `stored_as` is a name other than the document's own, for what must not show among the users' workflows.
        """
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
        definition = self._definition(workflow, bundle, files, workspace)
        definition = replace(definition, name=stored_as or definition.name)
        known = await self._version(definition)
        if known is None:
            for data in bundle.files.values():
                await self.artifacts.put(data, format="file")
        await self.catalog.put(definition)
        # The author's folder is looked at again: its files may have changed back.
        self._loaded.pop((workspace, definition.name, definition.version), None)
        return definition, known is None

    async def load(self, workspace: str, name: str, version: str) -> Loaded:
        """Give a version ready to run. Raises NotFound."""
        key = (workspace, name, version)
        if key in self._loaded:
            self._loaded.move_to_end(key)
            return self._loaded[key]
        definition = await self.catalog.get(workspace, name, version)
        workflow = parse(definition.text, definition.file_name)
        loaded = Loaded(graph=build(workflow), folder=await self._place(definition, workflow))
        self._loaded[key] = loaded
        if len(self._loaded) > _REMEMBERED:
            self._loaded.popitem(last=False)
        return loaded

    async def newest(self, workspace: str, name: str) -> str:
        """Give the newest version of a name. Raises NotFound."""
        return (await self.catalog.get(workspace, name)).version

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

    async def _place(self, definition: Definition, workflow: Workflow) -> Path:
        if definition.origin:
            origin = Path(definition.origin)
            projects = tuple(f"{Path(each)}/" for each in _projects(build(workflow)))
            if await asyncio.to_thread(_still_there, origin, definition.files, projects):
                return origin
        return await self._unpacked(definition)

    async def _unpacked(self, definition: Definition) -> Path:
        target = self.folder / definition.version
        if not target.exists():
            contents = {}
            for name, content in definition.files.items():
                ref = Ref(uri=f"artifact:{content}", bytes=0, checksum=content)
                contents[name] = await self.artifacts.get(ref)
            await asyncio.to_thread(_unpack, target, contents)
        return target


def _unpack(target: Path, contents: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(dir=target.parent))
    for name, data in contents.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(data)
    try:
        fresh.rename(target)
    except OSError:  # somebody else was faster; the content is the same
        shutil.rmtree(fresh, ignore_errors=True)


def _still_there(origin: Path, files: Mapping[str, str], projects: tuple[str, ...]) -> bool:
    """Say whether a folder still holds a version's files. Projects change as they run: being there is enough."""
    if not origin.is_dir():
        return False
    for name, content in files.items():
        path = origin / name
        if not path.is_file():
            return False
        if not name.startswith(projects) and digest(path.read_bytes()) != content:
            return False
    return True


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
