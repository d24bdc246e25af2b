"""Several servers behind one name: which of them has an attempt, and which gets a new one.

An attempt must never be at two of them. So without a handle all are asked whether they have it, and while one cannot be
asked, the outcome is unknown: it is not started anywhere else, unless nobody can have started it before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count
from typing import TypeVar

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId
from flexcore.runtime.interface import Capabilities, ExecutionRequest, Health, Resources
from flexcore_remote.handle import server_of
from flexcore_remote.server import Introduction, RemoteServer, Standing

Answer = TypeVar("Answer")
Number = TypeVar("Number", int, float)


class Fleet:
    """The servers of one instance; what it keeps in memory is for choosing fairly only."""

    def __init__(self, servers: Sequence[RemoteServer]) -> None:
        self.servers = tuple(servers)
        self._turn = count()

    async def for_attempt(self, request: ExecutionRequest) -> RemoteServer | Failure:
        """Find the server that has the attempt, or the one that shall have it. Raises RuntimeUnavailable."""
        if request.handle is not None:
            return await self.holding(request.handle) or _gone(request.handle)
        if len(self.servers) == 1:
            await self.servers[0].connected()
            return self.servers[0]
        having = None if request.fresh else await self._having(request.id)
        return having or await self._chosen(request)

    async def holding(self, handle: Handle) -> RemoteServer | None:
        """Find the server that a handle is of; None when no server of that id is left."""
        wanted = server_of(handle)
        for each in self.servers:
            if each.known and each.known.server_id == wanted and (await each.connected()).server_id == wanted:
                return each
        answers = await self.ask(lambda server: server.connected())
        for server, answer in answers:
            if isinstance(answer, Introduction) and answer.server_id == wanted:
                return server
        _raise_first(answers)
        return None

    async def ask(
        self, question: Callable[[RemoteServer], Awaitable[Answer]]
    ) -> list[tuple[RemoteServer, Answer | RuntimeUnavailable]]:
        """Ask all at the same time; one that cannot be reached answers with that."""
        answers = await asyncio.gather(*(question(each) for each in self.servers), return_exceptions=True)
        heard: list[tuple[RemoteServer, Answer | RuntimeUnavailable]] = []
        for server, answer in zip(self.servers, answers, strict=True):
            if isinstance(answer, BaseException) and not isinstance(answer, RuntimeUnavailable):
                raise answer
            heard.append((server, answer))
        return heard

    async def close(self) -> None:
        """Drop all connections."""
        await asyncio.gather(*(each.close() for each in self.servers))

    async def _having(self, id: AttemptId) -> RemoteServer | None:
        answers = await self.ask(lambda server: server.has(id))
        for server, answer in answers:
            if answer is True:
                return server
        _raise_first(answers)
        return None

    async def _chosen(self, request: ExecutionRequest) -> RemoteServer | Failure:
        """Choose the least busy of those that can have new work; of equals, each in its turn."""
        turn = next(self._turn)
        chosen: list[tuple[int, int, RemoteServer]] = []
        reasons: list[str] = []
        answers = await self.ask(_met)
        tags = self._tags(request)
        for number, (server, answer) in enumerate(answers):
            if isinstance(answer, RuntimeUnavailable):
                reasons.append(answer.message)
            elif not _is_able(answer[0].capabilities, server.tags, tags, request):
                continue
            elif answer[1].health.state is Health.DOWN:
                reasons.append(f"{server.address}: {answer[1].health.reason}")
            else:
                chosen.append((answer[1].busy, (number - turn) % len(self.servers), server))
        if chosen:
            return min(chosen, key=lambda each: each[:2])[2]
        if not reasons:
            return _unfit(request)
        raise RuntimeUnavailable(f"no server can have the step now: {'; '.join(reasons)}", hint="mend one of them")

    def _tags(self, request: ExecutionRequest) -> frozenset[str]:
        """Give the tags by which servers differ. What none of them has is a tag of the whole runtime: any will do."""
        wanted, known = frozenset(request.requirements.tags), [each.known for each in self.servers]
        if None in known:  # the one that was never met may have them
            return wanted
        told = [each.capabilities.tags for each in known if each] + [each.tags for each in self.servers]
        return wanted.intersection(frozenset().union(*told))


def merged(found: Sequence[tuple[Capabilities, frozenset[str]]]) -> Capabilities:
    """Say what several servers can do together: a step goes to one of them, so limits are those of the largest.

    Files of the control plane cannot be seen there. `found` is not empty.
    """
    each = [capabilities for capabilities, _ in found]
    slots = [one.limits.slots for one in each]
    return Capabilities(
        step_kinds=frozenset(kind for one in each for kind in one.step_kinds),
        limits=Resources(
            cpu=_largest(one.limits.cpu for one in each),
            memory=_largest(one.limits.memory for one in each),
            gpu=_largest(one.limits.gpu for one in each),
            disk=_largest(one.limits.disk for one in each),
            slots=None if None in slots else sum(one or 0 for one in slots),
        ),
        unsupported={feature: why for one in each for feature, why in one.unsupported.items()},
        tags=frozenset(tag for one, tags in found for tag in one.tags | tags),
        data_stores=frozenset.intersection(*(one.data_stores for one in each)) - {"file"},
        versions={name: version for one in each for name, version in one.versions.items()},
        price_per_hour=max((one.price_per_hour for one in each if one.price_per_hour is not None), default=None),
    )


def _largest(limits: Iterable[Number | None]) -> Number | None:
    """Give the largest; None, which is unlimited or unknown, is larger than all."""
    given = list(limits)
    known = [limit for limit in given if limit is not None]
    return max(known) if len(known) == len(given) else None


async def _met(server: RemoteServer) -> tuple[Introduction, Standing]:
    return await server.connected(), await server.standing()


def _is_able(found: Capabilities, own: frozenset[str], tags: frozenset[str], request: ExecutionRequest) -> bool:
    needs, limits = request.requirements, found.limits
    pairs = [
        (needs.cpu, limits.cpu),
        (needs.memory, limits.memory),
        (needs.gpu, limits.gpu),
        (needs.disk, limits.disk),
    ]
    is_large = all(need is None or limit is None or need <= limit for need, limit in pairs)
    return is_large and tags <= found.tags | own and request.kind in found.step_kinds


def _raise_first(answers: Sequence[tuple[RemoteServer, object]]) -> None:
    for _, answer in answers:
        if isinstance(answer, RuntimeUnavailable):
            raise answer


def _gone(handle: Handle) -> Failure:
    return Failure(
        message=f"the server {server_of(handle)!r}, which had the attempt, is not among those of this runtime any more",
        error_class=ErrorClass.LOST,
        hint="if its state folder was removed, make sure that nothing of it runs there",
    )


def _unfit(request: ExecutionRequest) -> Failure:
    wanted = ", ".join(request.requirements.tags) or "no tags"
    return Failure(
        message=f"none of the servers runs {request.kind.value} steps of that size with {wanted}",
        error_class=ErrorClass.INPUT,
        hint="`flexcore runtime capabilities NAME` lists what they can do",
    )
