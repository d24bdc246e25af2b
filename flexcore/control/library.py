"""Which version of a workflow is in force, and how that is changed: deployed, pinned, rolled back, compared."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flexcore.control.auditing import Auditing
from flexcore.control.definitions import Definitions
from flexcore.model.errors import Conflict, InvalidDefinition, NotFound
from flexcore.model.requests import Bundle, Document
from flexcore.monitor import document as show
from flexcore.store.read import Catalog, Definition, Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The definitions of an installation as people work with them."""

    catalog: Catalog
    definitions: Definitions
    auditing: Auditing

    async def deploy(self, bundle: Bundle, workspace: str) -> Document:
        """Store a version, and say when it is not what new executions take because another one is pinned."""
        async with self.auditing.call("deploy", bundle.file_name, workspace) as call:
            try:
                definition, created = await self.definitions.deploy(bundle, workspace, call=call)
            except InvalidDefinition:
                call.tell(problem="invalid")
                raise
        standing = await self.catalog.standing(workspace, definition.name)
        pinned = standing.pinned
        return {"name": definition.name, "version": definition.version, "created": created, "pinned": pinned}

    async def diff(self, bundle: Bundle, workspace: str) -> Document:
        """Say what deploying would change, compared with the current version."""
        fresh = self.definitions.examined(bundle, workspace)
        try:
            standing = await self.catalog.standing(workspace, fresh.name)
        except NotFound:
            return _difference(None, fresh, None)
        return _difference(await self.catalog.get(workspace, fresh.name, standing.current), fresh, standing)

    async def document(self, name: str, version: str | None, workspace: str) -> Document:
        """Show a definition with all its versions."""
        definition = await self.catalog.get(workspace, name, version)
        versions = await self.catalog.versions(workspace, name)
        standing = await self.catalog.standing(workspace, name)
        graph = await self.definitions.graph(workspace, name, definition.version)
        return {
            **summary(definition),
            "text": definition.text,
            "inputs": graph.workflow.inputs,
            "files": sorted(definition.files),
            "pinned": standing.pinned,
            "versions": [_version(each, standing) for each in versions],
        }

    async def delete(self, name: str, workspace: str) -> None:
        """Take a name out of the list."""
        async with self.auditing.call("delete", name, workspace) as call:
            await self.catalog.delete(workspace, name, call.handed_over())

    async def pin(self, name: str, version: str | None, workspace: str) -> Document:
        """Have new executions take a version; None: the current one again."""
        async with self.auditing.call("unpin" if version is None else "pin", name, workspace, version=version) as call:
            await self.catalog.standing(workspace, name)  # only what is listed can be pinned
            if version is not None:
                version = (await self.catalog.get(workspace, name, version)).version
                call.tell(version=version)
            await self.catalog.pin(workspace, name, version, call.handed_over())
        return await self._standing(name, workspace)

    async def rollback(self, name: str, version: str | None, workspace: str) -> Document:
        """Make an older version the current one, by default the one deployed before it."""
        async with self.auditing.call("rollback", name, workspace, version=version) as call:
            standing = await self.catalog.standing(workspace, name)
            if standing.pinned is not None:
                raise Conflict(
                    f"workflow {name} is pinned to {standing.pinned}: going back would change nothing",
                    hint=f"flexcore workflow unpin {name}, or pin another version",
                )
            target = await self._before(name, workspace, standing) if version is None else version
            target = (await self.catalog.get(workspace, name, target)).version
            call.tell(version=target, instead_of=standing.current)
            await self.catalog.move(workspace, name, standing, target, call.handed_over())
        return await self._standing(name, workspace)

    async def _before(self, name: str, workspace: str, standing: Standing) -> str:
        versions = [each.version for each in await self.catalog.versions(workspace, name)]
        older = versions[versions.index(standing.current) + 1 :]
        if not older:
            raise Conflict(f"workflow {name} has no version before {standing.current}", hint="name the version")
        return older[0]

    async def _standing(self, name: str, workspace: str) -> Document:
        standing = await self.catalog.standing(workspace, name)
        return {"name": name, "current": standing.current, "pinned": standing.pinned}


def summary(definition: Definition) -> Document:
    """Show a definition without its text."""
    return {
        "name": definition.name,
        "version": definition.version,
        "description": definition.description,
        "runtimes": list(definition.runtimes),
        "created_at": show.time(definition.created_at),
    }


def _version(definition: Definition, standing: Standing) -> Document:
    return {
        "version": definition.version,
        "created_at": show.time(definition.created_at),
        "deployed_by": definition.deployed_by or None,
        "current": definition.version == standing.current,
        "pinned": definition.version == standing.pinned,
    }


def _difference(current: Definition | None, fresh: Definition, standing: Standing | None) -> Document:
    before = {} if current is None else current.files
    change = "new" if current is None else "unchanged" if current.version == fresh.version else "changed"
    return {
        "name": fresh.name,
        "version": fresh.version,
        "change": change,
        "current": None if current is None else current.version,
        "pinned": None if standing is None else standing.pinned,
        "text": "" if current is None else _unified(current, fresh),
        "files": _changed_files(before, fresh.files),
    }


def _unified(current: Definition, fresh: Definition) -> str:
    lines = difflib.unified_diff(
        current.text.splitlines(),
        fresh.text.splitlines(),
        f"{current.file_name} ({current.version})",
        f"{fresh.file_name} ({fresh.version})",
        lineterm="",
    )
    return "\n".join(lines)


def _changed_files(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Sequence[str]]:
    return {
        "added": sorted(set(after) - set(before)),
        "changed": sorted(name for name in set(after) & set(before) if after[name] != before[name]),
        "removed": sorted(set(before) - set(after)),
    }
