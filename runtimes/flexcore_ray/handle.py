"""Whose job it is: what is written on a job at its submission, and what the engine keeps to find it again.

A name alone proves nothing: names come back after a cluster was set up anew, and anybody may submit under any name.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flexcore.model.execution import Handle
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.runtime.interface import ExecutionRequest
from flexcore_ray.client import Job

VERSION = 1
SESSION = "session"  # key of the handle: which start of the cluster the job was submitted to
_PREFIX = "flexcore."


@dataclass(frozen=True, slots=True)
class Label:
    """What our jobs carry as metadata. Everybody who sees the cluster can read it: no parameter is in it.

    `definition` is the hash of the files that were uploaded; `nonce` tells two submissions of one attempt apart.
    """

    installation: str
    execution: str
    path: str
    number: int
    token: int
    kind: str
    definition: str
    nonce: str

    @property
    def identity(self) -> str:
        """Give what makes it *that* job, beside its name."""
        return f"{self.token}/{self.definition[:16]}/{self.nonce}"

    @property
    def attempt(self) -> AttemptId:
        """Give the attempt that the job is."""
        return AttemptId(ExecutionId(self.execution), StepPath(self.path), self.number)

    def metadata(self) -> dict[str, str]:
        """Write it down as Ray takes it: texts by name."""
        return {f"{_PREFIX}{name}": str(getattr(self, name)) for name in self.__slots__}

    def means(self, request: ExecutionRequest, installation: str) -> bool:
        """Whether a job with this label was submitted for the request."""
        return (self.installation, self.attempt, self.token) == (installation, request.id, request.token)


def label_of(job: Job) -> Label | None:
    """Read a job's label; None when it is not ours."""
    given: Mapping[str, str] = {
        name.removeprefix(_PREFIX): value for name, value in job.metadata.items() if name.startswith(_PREFIX)
    }
    try:
        return Label(
            installation=given["installation"],
            execution=given["execution"],
            path=given["path"],
            number=int(given["number"]),
            token=int(given["token"]),
            kind=given["kind"],
            definition=given["definition"],
            nonce=given["nonce"],
        )
    except (KeyError, ValueError):
        return None


def handle_of(job: Job, label: Label, session: str) -> Handle:
    """Make the handle of a job that was submitted."""
    return Handle(VERSION, job.id, label.identity, {SESSION: session})
