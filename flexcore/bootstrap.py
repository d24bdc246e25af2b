"""The composition root: the only module that names concrete classes and connects them.

async with embedded(settings) as control_plane:
    started = await control_plane.start(StartRequest(workflow="etl"))
"""

import asyncio
import contextlib
import os
import pwd
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flexcore.analyzer.policy import WEIGHTS, Policy, PolicyName
from flexcore.analyzer.rules import Thresholds
from flexcore.control.auditing import Auditing
from flexcore.control.definitions import Definitions
from flexcore.control.explaining import Explaining
from flexcore.control.launching import Launcher
from flexcore.control.library import Library
from flexcore.control.planning import Planner, RefreshService
from flexcore.control.reading import ExecutionReading
from flexcore.control.runtimes import RuntimesView
from flexcore.control.verify import verify_executions
from flexcore.controlplane import ControlPlane
from flexcore.engine.attempts import Driver
from flexcore.engine.evaluate import ExpressionPool
from flexcore.engine.loop import Engine, EngineParts
from flexcore.engine.services.commands import CommandService
from flexcore.engine.services.queues import QueueService
from flexcore.engine.services.rescue import RescueService
from flexcore.engine.services.retention import RetentionService
from flexcore.engine.services.runner import Service, run_services
from flexcore.engine.services.sweep import SweepService
from flexcore.engine.work import Limits
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Collectable
from flexcore.monitor.hub import Hub
from flexcore.monitor.learning import OF_A_COMMAND, OF_A_SERVER, Learning
from flexcore.monitor.load import Gauge, loads
from flexcore.monitor.lookout import Lookout
from flexcore.runtime import registry as runtimes
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.supervised import Observer, Silent
from flexcore.security.secrets import SecretSource
from flexcore.settings import ArtifactSettings, Settings
from flexcore.store.artifacts_s3 import S3Artifacts, S3Place
from flexcore.store.logs import LogLimits
from flexcore.store.read import Fault
from flexcore.store.retention import CollectedArtifacts
from flexcore.store.sqlite import Parts, Store, database_file, open_store

if TYPE_CHECKING:
    from flexcore.control.doctor import Check


_COLLECTING = timedelta(hours=1)
_COLLECTING_JITTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """A control plane and what it is made of, as long as it is open."""

    control_plane: ControlPlane
    engine: Engine
    store: Store
    registry: runtimes.Registry


def now() -> datetime:
    """Tell the time. The one place where the clock is read."""
    return datetime.now(UTC)


def entropy() -> bytes:
    """Give randomness. The one place where it is drawn."""
    return os.urandom(16)


@asynccontextmanager
async def embedded(settings: Settings, *, serve_others: bool = False) -> AsyncIterator[ControlPlane]:
    """Run a control plane in this process. With `serve_others`, it also takes over what dead processes left."""
    async with opened(settings, serve_others=serve_others) as installation:
        yield installation.control_plane


@asynccontextmanager
async def opened(
    settings: Settings, *, serve_others: bool = False, observer: Observer | None = None
) -> AsyncIterator[Installation]:
    """Open an installation with all its parts at hand."""
    store = _open_store(settings)
    gauge = Gauge(observer or Silent())
    async with AsyncExitStack() as closing:
        closing.callback(store.close)
        await store.ownership.acquire()
        closing.push_async_callback(store.ownership.release)
        registry = _registry(settings, store, gauge)
        closing.push_async_callback(registry.close)
        pool = ExpressionPool(
            size=settings.expressions.processes or min(os.cpu_count() or 1, 4),
            budget_seconds=settings.expressions.budget_seconds,
            memory_bytes=settings.expressions.memory_bytes,
        )
        closing.push_async_callback(pool.close)
        installation, services = _assembled(settings, store, registry, gauge, pool, serve_others)
        closing.push_async_callback(installation.engine.close)
        closing.push_async_callback(installation.control_plane.planner.lookout.close)
        running = asyncio.get_running_loop().create_task(run_services(services))
        closing.push_async_callback(_stopped, running)
        yield installation


async def _stopped(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _open_store(settings: Settings) -> Store:
    file = database_file(settings.store.url)
    half = settings.logs.attempt_bytes // 2
    limits = LogLimits(head=half, segment=max(half // 8, 128), tail_segments=8)
    parts = Parts(limits=limits)
    if settings.artifacts.url:
        parts = replace(parts, artifacts=_in_object_store(settings.artifacts))
    return open_store(file.parent, now=now, file_name=file.name, parts=parts)


def artifacts_of(settings: Settings) -> Callable[[str, Path], CollectedArtifacts]:
    """Give what makes the artifact store of an installation, with a folder of its own, as the settings want it."""
    return _in_object_store(settings.artifacts) if settings.artifacts.url else Parts().artifacts


def _in_object_store(settings: ArtifactSettings) -> Callable[[str, Path], CollectedArtifacts]:
    place = S3Place(
        url=settings.url,
        endpoint=settings.endpoint,
        region=settings.region,
        access_key=settings.access_key,
        secret_key=settings.secret_key,
    )
    return partial(S3Artifacts, place)


def _registry(settings: Settings, store: Store, observer: Observer | None) -> runtimes.Registry:
    instances = [
        runtimes.RuntimeSettings(
            name=name,
            type=each.type,
            enabled=each.enabled,
            priority=each.priority,
            health_check_interval=each.health_check_interval,
            tags=each.tags,
            options=each.options,
        )
        for name, each in settings.runtimes.items()
    ]
    context = RuntimeContext(
        installation=store.installation,
        state_folder=store.folder / "runtimes",
        artifacts=store.artifacts,
        now=now,
    )
    return runtimes.Registry(instances, context, observer=observer)


def _assembled(
    settings: Settings,
    store: Store,
    registry: runtimes.Registry,
    gauge: Gauge,
    pool: ExpressionPool,
    serve_others: bool,
) -> tuple[Installation, list[Service]]:
    hub, planner = Hub(now), _planner(settings, store, registry, gauge, serve_others)
    definitions = Definitions(
        catalog=store.catalog,
        artifacts=store.artifacts,
        folder=store.folder / "versions",
        now=now,
        schemas=registry.parameter_schemas,
        most_bytes=settings.limits.bundle_bytes,
    )
    engine = _engine(settings, store, registry, pool, hub, planner, definitions)
    commands = CommandService(engine, store.journal)
    rescue = RescueService(engine, store.journal, store.ownership, definitions, commands, planner.ready)
    sweep = _sweep(store, registry)
    auditing = Auditing(trail=store.audit, now=now, actor="token" if serve_others else _user())
    retention = _retention(settings, store)
    control_plane = ControlPlane(
        catalog=store.catalog,
        definitions=definitions,
        launcher=Launcher(
            engine=engine,
            definitions=definitions,
            reader=store.reader,
            artifacts=store.artifacts,
            planner=planner,
            inline_bytes=settings.limits.inline_bytes,
            now=now,
            entropy=entropy,
        ),
        reading=ExecutionReading(
            reader=store.reader,
            definitions=definitions,
            artifacts=store.artifacts,
            log_store=store.logs,
            hub=hub,
            durability=store.durability,
            now=now,
        ),
        explaining=Explaining(store.reader, definitions, planner),
        planner=planner,
        runtimes_view=RuntimesView(registry),
        commands=store.commands,
        command_service=commands,
        rescue=rescue,
        sweep=sweep,
        retention=retention,
        library=Library(catalog=store.catalog, definitions=definitions, auditing=auditing),
        auditing=auditing,
        now=now,
    )
    services: list[Service] = [commands, RefreshService(planner), QueueService(engine.queues)]
    if serve_others:
        services += [rescue, sweep, retention]
    found = Installation(control_plane=control_plane, engine=engine, store=store, registry=registry)
    return found, services


def _retention(settings: Settings, store: Store) -> RetentionService:
    ages = {
        Collectable.EXECUTIONS: settings.retention.executions,
        Collectable.LOGS: settings.retention.logs,
        Collectable.ARTIFACTS: settings.retention.artifacts,
        Collectable.CACHE: settings.retention.cache,
        Collectable.AUDIT: settings.retention.audit,
    }
    jitter = _COLLECTING_JITTER * (entropy()[0] / 255)  # so that servers of one store do not come all at once
    return RetentionService(
        retention=store.retention,
        trail=store.audit,
        ages=ages,
        keep_last=settings.retention.keep_last,
        now=now,
        interval=_COLLECTING + jitter,
    )


def _user() -> str:
    """Name the user of the operating system whom this process works for."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in a container, often
        return f"uid {os.getuid()}"


def _sweep(store: Store, registry: runtimes.Registry) -> SweepService:
    async def state_of(id: ExecutionId) -> ExecutionState:
        return (await store.reader.execution(id)).state

    return SweepService(registry, state_of, store.installation)


def _planner(
    settings: Settings, store: Store, registry: runtimes.Registry, gauge: Gauge, serve_others: bool
) -> Planner:
    name = PolicyName(settings.policy.placement)
    policy = Policy(
        name=name,
        weights=replace(WEIGHTS[name], seconds_per_unit=settings.policy.seconds_per_unit),
        thresholds=Thresholds(
            cpu=settings.policy.intensive_cpu,
            memory=settings.policy.intensive_memory_bytes,
            gpu=settings.policy.intensive_gpu,
        ),
    )

    most = OF_A_SERVER if serve_others else OF_A_COMMAND
    lookout = Lookout(
        candidates=registry.candidates,
        known=registry.known_candidates,
        loads=partial(loads, gauge, _concurrency(settings), store.reader.pools),
        prices={name: each.price_per_hour for name, each in settings.runtimes.items() if each.price_per_hour},
        learning=None if name is PolicyName.RULES else Learning(store.observations, most),
        now=now,
    )
    planner = Planner(lookout=lookout, policy=policy, data_store=store.artifacts.store)
    gauge.changed = planner.runtimes_changed
    return planner


def _concurrency(settings: Settings) -> dict[str, int]:
    return {name: each.concurrency for name, each in settings.runtimes.items() if each.concurrency}


def _engine(
    settings: Settings,
    store: Store,
    registry: runtimes.Registry,
    pool: ExpressionPool,
    hub: Hub,
    planner: Planner,
    definitions: Definitions,
) -> Engine:
    limits = Limits(
        inline_bytes=settings.limits.inline_bytes,
        foreach_items=settings.limits.foreach_items,
        depth=settings.limits.depth,
        open_executions=settings.limits.queue,
        infrastructure_tries=settings.policy.infrastructure_attempts,
        unplaced_interval=settings.policy.recheck,
        runtimes=_concurrency(settings),
        tags=dict(settings.limits.tags),
    )
    driver = Driver(
        runtimes=registry,
        artifacts=store.artifacts,
        logs=store.logs,
        secrets=SecretSource(os.environ, Path.cwd(), settings.home),
        observer=hub,
        inline_bytes=settings.limits.inline_bytes,
        now=now,
        grace=settings.policy.grace,
    )
    return Engine(
        EngineParts(
            journal=store.journal,
            commands=store.commands,
            definitions=definitions,
            evaluator=pool,
            artifacts=store.artifacts,
            driver=driver,
            observer=hub,
            place=planner.place,
            price=planner.price,
            now=now,
            entropy=entropy,
            limits=limits,
        )
    )


async def verify(settings: Settings) -> list[Fault]:
    """Prove, offline, that every execution's state is the fold of its history, and look for damage."""
    store = _open_store(settings)
    try:
        _, found = await verify_executions(store.reader, store.artifacts)
        return [*await store.integrity(), *found]
    finally:
        store.close()


async def doctor(settings: Settings) -> "list[Check]":
    """Check this machine and this installation."""
    from flexcore.control.doctor import examine  # nothing else needs it, and start-up time counts

    async with AsyncExitStack() as closing:
        store = _open_store(settings)
        closing.callback(store.close)
        registry = _registry(settings, store, None)
        closing.push_async_callback(registry.close)
        pool = ExpressionPool()
        closing.push_async_callback(pool.close)
        return await examine(store, registry, pool)


async def serve(settings: Settings) -> None:
    """Serve until interrupted. Takes over what dead processes left; says where it listens, and the token once."""
    from flexcore.api.server import Addresses, ServerOptions  # brings gRPC and FastAPI
    from flexcore.api.server import serve as serve_api
    from flexcore.monitor.metrics import Metrics
    from flexcore.security.authn import load_or_create_token, verifier_of

    metrics = Metrics()
    async with opened(settings, serve_others=True, observer=metrics) as installation:
        metrics.count_open(lambda: len(installation.engine.live))
        planner = installation.control_plane.planner
        metrics.count_placement(lambda: planner.faults, lambda: len(planner.resting))
        if settings.server.token:
            verifier, created = verifier_of(settings.server.token), None
        else:
            verifier, created = load_or_create_token(installation.store.folder)

        def started(addresses: Addresses) -> None:
            _say(f"HTTP on http://{addresses.http}, gRPC on {addresses.grpc}; store {installation.store.url}")
            _say(f"durability: {installation.store.durability}")
            if created is not None:
                _say(f"token, shown only now: {created}")
                _say("clients send it: export FLEXCORE_TOKEN=<token>")

        options = ServerOptions(
            verifier=verifier,
            ready=lambda: _ready(installation),
            metrics=metrics.render,
            http=settings.server.http,
            grpc=settings.server.grpc,
            body_limit_bytes=settings.server.body_bytes,
        )
        await serve_api(installation.control_plane, options, started, asyncio.Event())


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _ready(installation: Installation) -> tuple[bool, str]:
    durability = installation.store.durability
    return True, "ready" if durability == "full" else f"degraded: durability is {durability}"
