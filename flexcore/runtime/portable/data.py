"""Data between runtimes: where a step gets its inputs, where it leaves its outputs, and what it says of them then.

A step refers to data by a typed reference, a JSON object: `uri`, `format`, `bytes`, and what is known of `checksum`,
`rows`, `schema` and the `step` that made it. References are made and followed here, on our side; the far side gets
links that carry their own permission, and never the credentials of a store.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from flexcore.model.errors import InvalidInput, NotFound, RuntimeUnavailable, StoreUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId
from flexcore.model.values import JSON, Ref
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.plugin import ArtifactStore, Link, Offer

VALID = timedelta(days=7)
"""How long links work: as long as an object store signs at most, for the work may wait for its place first."""

_OURS = "artifact:"
_PLAIN = ("https://", "http://", "file:///")


class DeclaredInput(Protocol):
    """What a step says of data it reads: `PythonParameters.inputs` and the like."""

    @property
    def source(self) -> Mapping[str, Any]:
        """Give the typed reference."""
        ...


class DeclaredOutput(Protocol):
    """What a step says of data it makes."""

    @property
    def path(self) -> str:
        """Give the file, relative to the working folder."""
        ...

    @property
    def format(self) -> str:
        """Give the format."""
        ...


class DeclaresFiles(Protocol):
    """The parameters of a step with `inputs` and `outputs`."""

    @property
    def inputs(self) -> Mapping[str, DeclaredInput]:
        """Give the inputs by name."""
        ...

    @property
    def outputs(self) -> Mapping[str, DeclaredOutput]:
        """Give the outputs by name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FarInput:
    """Data that the far side fetches before the work starts. `checksum` is `sha256-<hex>`, or empty: unknown."""

    link: Link
    format: str
    bytes: int
    checksum: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FarOutput:
    """A file, relative to the working folder, that the far side stores after the work has succeeded."""

    path: str
    format: str
    offer: Offer


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLinks:
    """What goes to a step and comes from it beside its parameters and its result."""

    inputs: Mapping[str, FarInput] = field(default_factory=dict)
    outputs: Mapping[str, FarOutput] = field(default_factory=dict)


NO_DATA = DataLinks()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What the far side says of an output that it has stored. `checksum` is `sha256-<hex>`."""

    bytes: int
    checksum: str
    rows: int | None = None
    schema: Mapping[str, JSON] | None = None


async def step_data(parameters: DeclaresFiles, artifacts: ArtifactStore, id: AttemptId) -> DataLinks | Failure:
    """Make the links for an attempt. Asked again for the same attempt, the outputs' places are the same.

    Raises RuntimeUnavailable when the artifact store cannot be reached: then the attempt has not failed.
    """
    inputs: dict[str, FarInput] = {}
    for name, declared in parameters.inputs.items():
        ref = _ref(declared.source)
        try:
            link = await _link(ref, artifacts)
        except (NotFound, InvalidInput) as error:
            message = f"input '{name}' cannot be had: {error.message}"
            return Failure(message=message, error_class=ErrorClass.INPUT, hint=error.hint)
        except StoreUnavailable as error:
            raise RuntimeUnavailable(f"input '{name}' cannot be linked: {error.message}", hint=error.hint) from error
        inputs[name] = FarInput(link=link, format=ref.format, bytes=ref.bytes, checksum=ref.checksum)
    made = await offers(parameters.outputs, artifacts, id)
    return DataLinks(inputs=inputs, outputs=made.outputs)


async def offers(outputs: Mapping[str, DeclaredOutput], artifacts: ArtifactStore, id: AttemptId) -> DataLinks:
    """Make the places for an attempt's outputs alone. Raises RuntimeUnavailable."""
    try:
        return DataLinks(
            outputs={
                name: FarOutput(path=each.path, format=each.format, offer=await artifacts.offer(f"{id}:{name}", VALID))
                for name, each in outputs.items()
            }
        )
    except StoreUnavailable as error:
        raise RuntimeUnavailable(f"no place for data can be offered: {error.message}", hint=error.hint) from error


def with_references(
    outcome: Succeeded, data: DataLinks, stored: Mapping[str, Stored], id: AttemptId
) -> tuple[Succeeded | Failed, tuple[Ref, ...]]:
    """Put a reference for each output into a step's result; give the references for `ExecutionResult.artifacts` too.

    A result that is neither an object nor null has no room for them, and fails the step.
    """
    if not data.outputs:
        return outcome, ()
    output = {} if outcome.output is None else outcome.output
    missing = [f"{name} ({each.path})" for name, each in data.outputs.items() if name not in stored]
    if missing or not isinstance(output, Mapping):
        message = (
            f"the step left no file for its output {', '.join(missing)}"
            if missing
            else f"the result has to be an object to take {', '.join(sorted(data.outputs))}, and is {output!r:.40}"
        )
        return Failed(Failure(message=message, error_class=ErrorClass.USER, name="OutputMissing")), ()
    refs = {
        name: Ref(
            uri=data.outputs[name].offer.uri,
            bytes=each.bytes,
            format=data.outputs[name].format,
            checksum=each.checksum,
            rows=each.rows,
            schema=each.schema,
        )
        for name, each in stored.items()
        if name in data.outputs
    }
    return Succeeded({**output, **{name: as_json(ref, id) for name, ref in refs.items()}}), tuple(refs.values())


def as_json(ref: Ref, id: AttemptId) -> JSON:
    """Write a reference as a step's result has it: unknown parts are left out, and it names the step it came from."""
    shown: dict[str, JSON] = {"uri": ref.uri, "format": ref.format, "bytes": ref.bytes}
    shown |= {"checksum": ref.checksum} if ref.checksum else {}
    shown |= {} if ref.rows is None else {"rows": ref.rows}
    shown |= {} if ref.schema is None else {"schema": ref.schema}
    return {**shown, "step": str(id.path)}


def _ref(source: Mapping[str, Any]) -> Ref:
    return Ref(
        uri=source["uri"],
        bytes=source.get("bytes", 0),
        format=source["format"],
        checksum=source.get("checksum") or "",
        rows=source.get("rows"),
        schema=source.get("schema"),
    )


async def _link(ref: Ref, artifacts: ArtifactStore) -> Link:
    if ref.uri.startswith(_OURS):
        return await artifacts.link(ref, VALID)
    if ref.uri.startswith(_PLAIN):
        return Link(ref.uri)
    raise InvalidInput(f"{ref.uri} is nothing that a step can fetch", hint="artifact:…, https://… or file:///…")
