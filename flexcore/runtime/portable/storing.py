"""Stores files that a step left on this machine: for runtimes whose work is no program of ours.

A file is read twice and never held in memory as a whole. Whoever stores again after a crash stores the same place.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId
from flexcore.model.values import Ref
from flexcore.runtime.flexcore_far import transfer
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.plugin import ArtifactStore, Link
from flexcore.runtime.portable.data import DeclaredOutput, Stored, offers, with_references


async def store_outputs(
    outcome: Succeeded,
    outputs: Mapping[str, DeclaredOutput],
    folder: Path,
    artifacts: ArtifactStore,
    id: AttemptId,
) -> tuple[Succeeded | Failed, tuple[Ref, ...]]:
    """Store each output that is there, and put references into the result.

    One that is not there fails the step, and so does an answer of the store that would be the same the next time.
    `folder` is where the outputs' paths start. Raises RuntimeUnavailable when the artifact store cannot be reached.
    """
    data = await offers(outputs, artifacts, id)
    stored: dict[str, Stored] = {}
    for name, each in data.outputs.items():
        file = folder / each.path
        if await asyncio.to_thread(file.is_file):
            try:
                stored[name] = await asyncio.to_thread(_store, file, each.format, each.offer.link)
            except transfer.TROUBLES as error:
                why = f"output '{name}' cannot be stored: {transfer.reason(error)}"
                if transfer.is_in_vain(error):
                    return Failed(_not_transferred(why, transfer.hint(error))), ()
                raise RuntimeUnavailable(why) from None  # the original holds the link, which is a secret
    return with_references(outcome, data, stored, id)


def _store(file: Path, format: str, link: Link) -> Stored:
    found = transfer.described(file, format, _goes_on)
    transfer.put(file, asdict(link), found["bytes"])
    return Stored(**found)


def _goes_on() -> None:
    """Nothing ends it in between: the work is done, and this goes on in its thread if the reader leaves."""


def _not_transferred(why: str, hint: str) -> Failure:
    return Failure(message=why, error_class=ErrorClass.DEPENDENCY, name="NotTransferred", hint=hint)
