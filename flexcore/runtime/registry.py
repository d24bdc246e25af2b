"""Finds plug-ins, makes the configured instances of them, and hands those out under supervision.

Plug-ins are listed without being imported; only those of instances that are configured, enabled and asked for are
loaded. The registry keeps no copy of what a plug-in declares and knows no key of any configuration.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from importlib.metadata import entry_points, metadata

from pydantic import BaseModel, ValidationError

from flexcore.model.errors import FlexCoreError, InternalError, InvalidSettings, NotFound
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.placement import Infeasibility, ReasonCode
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import INTERFACE_VERSION
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore.runtime.schemas import Made, ParameterSchemas, Schema
from flexcore.runtime.supervised import Observer, SupervisedRuntime, Supervision
from flexcore.runtime.wrong_values import keys_of, nearest, problems_in

GROUP = "flexcore.runtimes"
DEFAULT_PRIORITIES: Mapping[str, int] = {"meltano": 1, "ray": 2, "kubernetes": 3, "local": 4}
OTHER_PRIORITY = 100

Loader = Callable[[], RuntimePlugin]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """One instance's section of the settings. `priority` None is that of its type; `options` go to the plug-in."""

    name: str
    type: str
    enabled: bool = True
    priority: int | None = None  # lower is preferred
    health_check_interval: timedelta | None = None
    tags: frozenset[str] = frozenset()
    options: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """The priority that counts."""
        return DEFAULT_PRIORITIES.get(self.type, OTHER_PRIORITY) if self.priority is None else self.priority


def installed_plugins() -> dict[str, Loader]:
    """List the plug-ins of all installed distributions by type, without importing any."""
    return {each.name: each.load for each in entry_points(group=GROUP)}


class Registry:
    """The runtimes of this installation by name.

    `context.state_folder` is the parent of one folder per instance. `plugins` are the loaders by type; by default,
    what is installed.
    """

    def __init__(
        self,
        settings: Sequence[RuntimeSettings],
        context: RuntimeContext,
        *,
        plugins: Mapping[str, Loader] | None = None,
        observer: Observer | None = None,
        supervision: Supervision | None = None,
    ) -> None:
        self._settings = {each.name: each for each in settings}
        self._context = context
        self._loaders = plugins
        self._observer = observer
        self._supervision = supervision or Supervision()
        self._plugins: dict[str, RuntimePlugin] = {}
        self._instances: dict[str, SupervisedRuntime] = {}
        self._schemas: Made = {}
        self._missing: dict[str, str] = {}  # instance → why its plug-in cannot be had
        self._asking: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All configured instances, disabled ones too, in the order of the settings."""
        return tuple(self._settings)

    def get(self, name: str) -> SupervisedRuntime:
        """Give the instance, made on first use. Raises NotFound or InvalidSettings, saying what to do."""
        instance = self._instances.get(name)
        if instance is None:
            instance = self._instances[name] = self._create(self._configured(name))
        return instance

    def plugin(self, name: str) -> RuntimePlugin:
        """Give the plug-in that an instance is made of."""
        return self._plugin(self._configured(name))

    def check(self) -> None:
        """Make every enabled instance, so that mistakes in the settings show now. Raises InvalidSettings.

        A plug-in that is not installed is no mistake: the instance is a candidate with that as its obstacle.
        """
        self._usable()

    async def candidates(self, patience: timedelta | None = None) -> tuple[Candidate, ...]:
        """Ask every enabled instance how it is and what it can do, all at once, as far as memory is not enough.

        With `patience`, those that take longer are left to answer in their own time and count as not heard of yet.
        """
        tasks = [self._ask(each) for each in self._usable()]
        if tasks:
            await asyncio.wait(tasks, timeout=patience.total_seconds() if patience is not None else None)
        return self.known_candidates()

    def known_candidates(self) -> tuple[Candidate, ...]:
        """Say the same from memory alone, without waiting."""
        return tuple(self._candidate(each) for each in self._settings.values())

    def parameter_schemas(self) -> Mapping[StepKind, Schema]:
        """Give the JSON schema of `with` per step kind; several that differ for one kind are alternatives."""
        models: dict[StepKind, list[type[BaseModel]]] = {}
        plugins = {self._settings[each.name].type: self.plugin(each.name) for each in self._usable()}
        for plugin in plugins.values():
            for kind, model in plugin.parameters.items():
                models.setdefault(kind, []).append(model)
        return ParameterSchemas(models, self._schemas)

    def validate(self, kind: StepKind, parameters: Mapping[str, JSON], runtime: str) -> Mapping[str, JSON] | Failure:
        """Check a step's resolved `with` by the model of the runtime's plug-in; give it back as that model reads it.

        The failure lists every problem and never a value: parameters may hold secrets.
        """
        model = self.plugin(runtime).parameters.get(kind)
        if model is None:
            return Failure(message=f"runtime {runtime!r} cannot run {kind.value} steps", error_class=ErrorClass.INPUT)
        try:
            read = model.model_validate(dict(parameters))
        except ValidationError as error:
            problems = "; ".join(problems_in(error, model))
            message = f"the parameters of the {kind.value} step are not right: {problems}"
            return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")
        values: Mapping[str, JSON] = read.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return values

    async def advice(self, name: str) -> str:
        """Say what to do about an instance that cannot be used, as far as its own error says: often nothing."""
        try:
            await self.get(name).capabilities()
        except FlexCoreError as error:
            return error.hint
        return ""

    async def close(self) -> None:
        """Close every instance; work on the runtimes goes on."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
        instances, self._instances = self._instances, {}
        await asyncio.gather(*(each.close() for each in instances.values()))

    def _configured(self, name: str) -> RuntimeSettings:
        settings = self._settings.get(name)
        if settings is None:
            present = ", ".join(sorted(self._settings)) or "none"
            known = name in self._available()
            hint = f"add it under `runtimes` in the settings: `{name}: {{type: {name}}}`" if known else ""
            raise NotFound(f"runtime {name!r} not available: no such instance; present: {present}", hint=hint)
        if not settings.enabled:
            raise NotFound(
                f"runtime {name!r} not available: disabled", hint=f"set `runtimes.{name}.enabled: true` in the settings"
            )
        return settings

    def _available(self) -> Mapping[str, Loader]:
        if self._loaders is None:
            self._loaders = installed_plugins()
        return self._loaders

    def _plugin(self, settings: RuntimeSettings) -> RuntimePlugin:
        kind = settings.type
        if kind not in self._plugins:
            loader = self._available().get(kind)
            if loader is None:
                raise _no_plugin(settings, self._available())
            self._plugins[kind] = _loaded(settings, loader)
        return self._plugins[kind]

    def _usable(self) -> list[SupervisedRuntime]:
        """Make all enabled instances whose plug-ins can be had, and note why the others cannot."""
        made = []
        self._missing.clear()
        for settings in self._settings.values():
            if not settings.enabled:
                continue
            try:
                made.append(self.get(settings.name))
            except NotFound as error:
                self._missing[settings.name] = error.message
        return made

    def _ask(self, runtime: SupervisedRuntime) -> asyncio.Task[None]:
        """Refresh what is known of one instance, once for all who ask at the same time."""
        task = self._asking.get(runtime.name)
        if task is None or task.done():
            task = self._asking[runtime.name] = asyncio.create_task(_refresh(runtime))
        return task

    def _create(self, settings: RuntimeSettings) -> SupervisedRuntime:
        plugin = self._plugin(settings)
        config = _config(settings, plugin.config)
        context = replace(self._context, state_folder=self._context.state_folder / settings.name)
        interval = settings.health_check_interval
        figures = replace(self._supervision, health_interval=interval) if interval else self._supervision
        return SupervisedRuntime(
            settings.name,
            plugin.create(settings.name, config, context),
            now=self._context.now,
            observer=self._observer,
            supervision=figures,
            tags=settings.tags,
        )

    def _candidate(self, settings: RuntimeSettings) -> Candidate:
        instance = self._instances.get(settings.name)
        candidate = Candidate(
            name=settings.name,
            kind=settings.type,
            priority=settings.rank,
            enabled=settings.enabled,
            obstacle=self._obstacle(settings, instance),
        )
        if instance is None:
            return candidate
        return replace(candidate, capabilities=instance.known_capabilities, health=instance.known_health)

    def _obstacle(self, settings: RuntimeSettings, instance: SupervisedRuntime | None) -> Infeasibility | None:
        if settings.name in self._missing:
            return Infeasibility(ReasonCode.NOT_CONFIGURED, self._missing[settings.name])
        if instance is not None and instance.is_circuit_open:
            reason = f"{settings.name} could not be reached several times in a row and is left alone for a while"
            return Infeasibility(ReasonCode.CIRCUIT_OPEN, reason)
        return None


async def _refresh(runtime: SupervisedRuntime) -> None:
    """Ask both questions; a runtime that cannot say what it can do keeps its last answer, or has none."""
    await asyncio.gather(runtime.health(), runtime.capabilities(), return_exceptions=True)


def _no_plugin(settings: RuntimeSettings, available: Iterable[str]) -> NotFound:
    """Say that there is no plug-in of the type: one of an extra, misspelt, or of nobody we know."""
    kind, known = settings.type, sorted(available)
    if _has_extra(kind):
        return _no_package(settings)
    near = nearest(kind, known)
    meant = f"did you mean {near!r}?" if near else "other types come with packages of their own"
    return NotFound(
        f"runtime {settings.name!r} not available: there is no plug-in of type {kind!r}: {meant}",
        hint=f"installed types: {', '.join(known) or 'none'}; {meant}",
    )


def _no_package(settings: RuntimeSettings, error: ImportError | None = None) -> NotFound:
    kind = settings.type
    install = f"pip install 'flexcore[{kind}]'" if _has_extra(kind) else f"install all that its plug-in {kind!r} needs"
    why = f" ({error})" if error else ""
    message = f"runtime {settings.name!r} not available: its plug-in {kind!r} is not installed: {install}{why}"
    return NotFound(message, hint=install)


def _has_extra(kind: str) -> bool:
    return kind in DEFAULT_PRIORITIES and kind in (metadata("flexcore").get_all("Provides-Extra") or ())


def _loaded(settings: RuntimeSettings, loader: Loader) -> RuntimePlugin:
    kind = settings.type
    try:
        plugin = loader()
    except ImportError as error:
        raise _no_package(settings, error) from error
    if not isinstance(plugin, RuntimePlugin):
        raise InternalError(f"the entry point {kind!r} in {GROUP} gives a {type(plugin).__name__}, no RuntimePlugin")
    if plugin.interface != INTERFACE_VERSION:
        raise InvalidSettings(
            f"runtime {settings.name!r}: plug-in {kind!r} speaks interface {plugin.interface}, "
            f"this FlexCore speaks {INTERFACE_VERSION}",
            hint="install versions of the plug-in and of FlexCore that go together",
        )
    return plugin


def _config(settings: RuntimeSettings, model: type[BaseModel]) -> BaseModel:
    try:
        return model.model_validate(dict(settings.options))
    except ValidationError as error:
        problems = "; ".join(problems_in(error, model, f"runtimes.{settings.name}."))
        known = ", ".join(keys_of(model)) or "none"
        raise InvalidSettings(problems, hint=f"keys of a runtime of type {settings.type}: {known}") from error
