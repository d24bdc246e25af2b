"""The registry: discovery, instances by name, and errors that say what to do."""

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from flexcore.model.errors import InvalidSettings, NotFound, RuntimeUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.placement import ReasonCode
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Health
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore.runtime.registry import Loader, Registry, RuntimeSettings
from flexcore.testing.factories import execution_request, runtime_context
from flexcore.testing.fakes import ScriptedConfig, ScriptedRuntime, World, scripted_plugin


def registry(
    *settings: RuntimeSettings, world: World | None = None, plugins: dict[str, Loader] | None = None
) -> Registry:
    shared = world or World()
    loaders: dict[str, Loader] = plugins or {"scripted": lambda: scripted_plugin(shared)}
    return Registry(settings, runtime_context(Path("state")), plugins=loaders)


def scripted(name: str, **changes: object) -> RuntimeSettings:
    return RuntimeSettings(name=name, type="scripted", **changes)  # type: ignore[arg-type]  # a test's shorthand


def test_instances_are_made_once() -> None:
    present = registry(scripted("one"), scripted("two"))

    assert present.get("one") is present.get("one")
    assert present.get("two").name == "two"


def test_an_unknown_name_lists_what_is_present() -> None:
    with pytest.raises(NotFound) as caught:
        registry(scripted("local"), scripted("meltano")).get("ray")

    assert str(caught.value) == "runtime 'ray' not available: no such instance; present: local, meltano"


def test_an_installed_plugin_that_is_not_configured_has_a_hint() -> None:
    with pytest.raises(NotFound) as caught:
        registry(scripted("local")).get("scripted")

    assert "scripted: {type: scripted}" in caught.value.hint


def test_a_disabled_instance_says_how_to_enable_it() -> None:
    with pytest.raises(NotFound, match="runtime 'one' not available: disabled") as caught:
        registry(scripted("one", enabled=False)).get("one")

    assert caught.value.hint == "set `runtimes.one.enabled: true` in the settings"


def test_a_missing_plugin_says_what_to_install() -> None:
    with pytest.raises(NotFound, match=r"not installed: pip install 'flexcore\[ray\]'"):
        registry(RuntimeSettings(name="ray", type="ray")).get("ray")


def test_a_plugin_whose_library_is_missing_says_what_to_install() -> None:
    def load() -> RuntimePlugin:
        raise ModuleNotFoundError("No module named 'ray'")

    with pytest.raises(NotFound, match="No module named 'ray'") as caught:
        registry(RuntimeSettings(name="ray", type="ray"), plugins={"ray": load}).get("ray")

    assert caught.value.hint == "pip install 'flexcore[ray]'"


def test_wrong_options_name_the_instance_and_the_key() -> None:
    present = registry(scripted("one", options={"kinds": ["python"], "tagz": ["eu"]}))

    with pytest.raises(
        InvalidSettings, match=r"^runtimes\.one: unknown key 'tagz' \(did you mean 'tags'\?\)"
    ) as caught:
        present.check()

    assert "kinds, tags" in caught.value.hint


class Choosy(BaseModel):
    """A configuration with what people get wrong."""

    model_config = ConfigDict(extra="forbid")

    place: str = Field("here", pattern="^(here|there)$")
    size: int = 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"place": "s3cr3t"}, "runtimes.one.place: it can only be 'here' or 'there'"),
        ({"size": "s3cr3t"}, "runtimes.one.size: Input should be a valid integer"),
        ({"nothing_like_it": "s3cr3t"}, "runtimes.one: unknown key 'nothing_like_it'"),
    ],
)
def test_wrong_options_are_said_in_words_and_never_shown(options: dict[str, JSON], said: str) -> None:
    plugin = RuntimePlugin(kind="scripted", create=lambda *_: ScriptedRuntime(World()), config=Choosy)

    with pytest.raises(InvalidSettings) as caught:
        registry(scripted("one", options=options), plugins={"scripted": lambda: plugin}).check()

    assert caught.value.message.startswith(said)
    assert "s3cr3t" not in caught.value.message
    assert caught.value.hint == "keys of a runtime of type scripted: place, size"


@pytest.mark.parametrize(
    ("kind", "said"),
    [("scriptet", "did you mean 'scripted'?"), ("spark", "other types come with packages of their own")],
)
async def test_a_type_that_has_no_extra_is_not_to_be_installed(kind: str, said: str) -> None:
    present = registry(RuntimeSettings(name="one", type=kind))

    (one,) = await present.candidates()

    assert one.obstacle is not None
    assert one.obstacle.reason == f"runtime 'one' not available: there is no plug-in of type '{kind}': {said}"
    assert await present.advice("one") == f"installed types: scripted; {said}"


async def test_advice_on_an_instance_is_that_of_its_own_error() -> None:
    present = registry(scripted("one"), RuntimeSettings(name="ray", type="ray"))

    assert await present.advice("ray") == "pip install 'flexcore[ray]'"
    assert await present.advice("one") == ""


def test_a_plugin_of_another_interface_is_refused() -> None:
    plugin = replace(scripted_plugin(World()), interface=99)

    with pytest.raises(InvalidSettings, match="speaks interface 99, this FlexCore speaks 1"):
        registry(scripted("one"), plugins={"scripted": lambda: plugin}).get("one")


def test_only_enabled_instances_load_their_plugin() -> None:
    loaded: list[str] = []

    def loader(kind: str) -> Loader:
        def load() -> RuntimePlugin:
            loaded.append(kind)
            return scripted_plugin(World(), kind)

        return load

    present = registry(
        RuntimeSettings(name="one", type="a"),
        RuntimeSettings(name="two", type="b", enabled=False),
        plugins={kind: loader(kind) for kind in "abc"},
    )
    assert loaded == []
    present.check()

    assert loaded == ["a"]


def test_discovery_imports_no_plugin() -> None:
    code = (
        "import sys; from flexcore.runtime.registry import installed_plugins; found = installed_plugins(); "
        "assert 'local' in found, found; assert not [m for m in sys.modules if m.startswith('flexcore_')]"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_each_instance_has_a_folder_of_its_own() -> None:
    folders: list[Path] = []

    def create(_name: str, _config: BaseModel, context: RuntimeContext) -> ScriptedRuntime:
        folders.append(context.state_folder)
        return ScriptedRuntime(World())

    plugin = RuntimePlugin(kind="scripted", create=create)
    registry(scripted("one"), scripted("two"), plugins={"scripted": lambda: plugin}).check()

    assert folders == [Path("state/one"), Path("state/two")]


def test_the_priority_of_the_type_is_the_default() -> None:
    ranks = [RuntimeSettings(name="x", type=each).rank for each in ("meltano", "ray", "kubernetes", "local", "other")]

    assert ranks == sorted(ranks)
    assert RuntimeSettings(name="x", type="ray", priority=7).rank == 7


async def test_candidates_tell_how_every_instance_is() -> None:
    world = World()
    world.health = Health.DEGRADED
    present = registry(
        scripted("one", options={"kinds": ["bash"]}),
        scripted("two", enabled=False),
        RuntimeSettings(name="ray", type="ray"),
        world=world,
    )

    one, two, ray = await present.candidates()

    assert one.capabilities is not None
    assert one.capabilities.step_kinds == {StepKind.BASH}
    assert one.health is not None
    assert one.health.state is Health.DEGRADED
    assert (one.name, one.kind, one.enabled, one.obstacle) == ("one", "scripted", True, None)
    assert (two.enabled, two.capabilities) == (False, None)
    assert ray.obstacle is not None
    assert ray.obstacle.code is ReasonCode.NOT_CONFIGURED
    assert "pip install 'flexcore[ray]'" in ray.obstacle.reason


async def test_candidates_can_be_had_without_waiting_for_the_slow() -> None:
    world = World()
    world.health_hangs = True
    present = registry(scripted("one"), world=world)

    (one,) = await present.candidates(patience=timedelta(seconds=0.01))

    assert (one.health, one.obstacle) == (None, None)
    await present.close()


async def test_an_open_circuit_is_an_obstacle() -> None:
    world = World()
    world.reachable = False
    present = registry(scripted("one"), world=world)
    for _ in range(5):
        await _fails(present)

    (one,) = await present.candidates()

    assert one.obstacle is not None
    assert one.obstacle.code is ReasonCode.CIRCUIT_OPEN


async def _fails(present: Registry) -> None:
    with pytest.raises(RuntimeUnavailable):
        [event async for event in present.get("one").execute(execution_request())]


class Strict(BaseModel):
    """Parameters of a kind of step."""

    model_config = ConfigDict(extra="forbid")

    count: int
    text: str = "default"


def strict_registry() -> Registry:
    plugin = RuntimePlugin(
        kind="scripted", create=lambda *_: ScriptedRuntime(World()), parameters={StepKind.BASH: Strict}
    )
    return registry(scripted("one"), plugins={"scripted": lambda: plugin})


def test_parameters_are_given_back_as_the_model_reads_them() -> None:
    assert strict_registry().validate(StepKind.BASH, {"count": "3"}, "one") == {"count": 3}


def test_every_problem_of_the_parameters_is_named_and_no_value() -> None:
    found = strict_registry().validate(StepKind.BASH, {"count": "s3cr3t", "texd": "s3cr3t"}, "one")

    assert isinstance(found, Failure)
    assert found.error_class is ErrorClass.INPUT
    assert "count: " in found.message
    assert "unknown key 'texd' (did you mean 'text'?)" in found.message
    assert "s3cr3t" not in found.message


def test_a_kind_that_the_runtime_cannot_run_is_the_steps_input() -> None:
    found = strict_registry().validate(StepKind.DBT, {}, "one")

    assert isinstance(found, Failure)
    assert found.message == "runtime 'one' cannot run dbt steps"


def test_schemas_of_parameters_are_published_by_kind() -> None:
    schemas = strict_registry().parameter_schemas()

    assert schemas == {StepKind.BASH: Strict.model_json_schema()}


def test_the_schema_of_a_kind_that_nobody_asks_for_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    original = Strict.model_json_schema

    def schema() -> dict[str, Any]:
        made.append(original())
        return made[-1]

    monkeypatch.setattr(Strict, "model_json_schema", schema)
    known = strict_registry()

    assert known.parameter_schemas().get(StepKind.DBT) is None
    assert made == []
    assert known.parameter_schemas()[StepKind.BASH] == known.parameter_schemas()[StepKind.BASH] == original()
    assert len(made) == 1


def test_the_schemas_of_two_models_for_one_kind_are_alternatives() -> None:
    class Other(BaseModel):
        other: int

    def load(kind: str, model: type[BaseModel]) -> Loader:
        parameters = {StepKind.BASH: model}
        return lambda: RuntimePlugin(kind=kind, create=lambda *_: ScriptedRuntime(World()), parameters=parameters)

    plugins = {"a": load("a", Strict), "b": load("b", Other), "c": load("c", Strict)}
    known = registry(*(RuntimeSettings(name=each, type=each) for each in plugins), plugins=plugins)

    assert known.parameter_schemas() == {
        StepKind.BASH: {"anyOf": [Strict.model_json_schema(), Other.model_json_schema()]}
    }


async def test_closing_closes_what_wants_to_be_closed() -> None:
    closed: list[str] = []

    class Closable(ScriptedRuntime):
        async def close(self) -> None:
            closed.append("now")

    plugin = RuntimePlugin(kind="scripted", create=lambda *_: Closable(World()), config=ScriptedConfig)
    present = registry(scripted("one"), plugins={"scripted": lambda: plugin})
    present.get("one")

    await present.close()

    assert closed == ["now"]
