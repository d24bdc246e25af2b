"""From a step's parameters to the order of an attempt: argv, environment, locks, installations. Runs nothing.

Everything that can be known to be wrong is found here, before anything is started: Refused carries the failure.
"""

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, assert_never

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore_meltano import dbt
from flexcore_meltano.client import Executable, base_environment
from flexcore_meltano.config import DbtParameters, ExplicitState, MeltanoParameters, SingerParameters, for_tap
from flexcore_meltano.place import Place, fingerprint
from flexcore_meltano.project import PLUGIN_TYPES, Plugin, Project

OUTPUT_VARIABLE = "FLEXCORE_OUTPUT"
"""In the environment and in the strings of `config`: the folder for what a target writes into files."""

OUTPUTS_START = "outputs_start"
"""Note: the folder where the paths of `outputs` start; `output/` in it is the folder of the variable above."""

_LOCATION_SETTINGS = ("destination_path", "path", "filepath", "file_path", "output_path", "output_dir", "database")

Parameters = SingerParameters | MeltanoParameters | DbtParameters


class Refused(Exception):
    """The attempt cannot be started as asked."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def refuse(message: str, hint: str = "", error_class: ErrorClass = ErrorClass.INPUT, name: str = "") -> Refused:
    """Make the refusal of an attempt."""
    return Refused(Failure(message=message, hint=hint, error_class=error_class, name=name or "bad parameters"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to run, and where."""

    name: str  # the attempt's external name
    parameters: Parameters
    project: Project
    place: Place
    executable: Executable
    work: Path
    env: Mapping[str, str]
    time_limit_s: float | None
    grace_s: float
    retry: Path | None = None  # of dbt: the folder with the results of the attempt before, to go on from


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An order for the attempt's program, its environment, and what the result will need that the log does not say."""

    order: Mapping[str, Any]
    env: Mapping[str, str]
    notes: Mapping[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What differs between the kinds."""

    arguments: Sequence[str]
    plugins: Sequence[Plugin]
    env: Mapping[str, str]
    states: Sequence[str]
    notes: Mapping[str, JSON]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A plugin that the run needs, and where its installation is or will be."""

    plugin: Plugin
    fingerprint: str
    place: Place

    @property
    def folder(self) -> Path:
        """The folder of its virtual environment."""
        return self.place.plugin_folder(self.plugin, self.fingerprint)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "venv" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class _Pair:
    """One pipe of a singer step: `mappings` are names, `mappers` the plugins that do them."""

    tap: Plugin
    target: Plugin
    mappings: tuple[str, ...]
    mappers: tuple[Plugin, ...]
    state: str | None

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """All of the pipe, in order."""
        return (self.tap, *self.mappers, self.target)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The pipe as `meltano run` wants it."""
        return (self.tap.name, *self.mappings, self.target.name)

    @property
    def note(self) -> dict[str, JSON]:
        """What the result needs to know."""
        mappers: list[JSON] = [each.name for each in self.mappers]
        return {"tap": self.tap.name, "target": self.target.name, "mappers": mappers, "state": self.state}


def prepare(asked: Asked) -> Prepared:
    """Turn parameters into an order. Raises Refused or BadProject."""
    parts = _parts(asked)
    wanted = [_Wanted(each, fingerprint(each, asked.project), asked.place) for each in parts.plugins]
    if asked.parameters.install == "never":
        _insist_on_installed(wanted)
    meltano = [str(asked.executable.path), "--log-format", "json"]
    system_root = asked.work / "meltano"
    order = {
        "work": str(asked.work),
        "meltano": meltano,
        "argv": [*meltano, *parts.arguments],
        "run_id": _run_id(asked.name),
        "system_root": str(system_root),
        "output": str(asked.place.output),
        "database": str(asked.place.database) if asked.place.database else None,
        "state_by_cli": asked.project.state_backend not in (None, "systemdb") or asked.place.database is None,
        "installs": _installs(asked, wanted) if asked.parameters.install != "never" else [],
        "install_lock": str(asked.place.lock("install")),
        "roles": {each.name: each.type for each in asked.project.plugins},
        "links": [list(pair) for pair in _links(asked, system_root, wanted)],
        "states": [{"id": each, "lock": str(asked.place.lock(each))} for each in sorted(set(parts.states))],
        "time_limit_s": asked.time_limit_s,
        "grace_s": asked.grace_s,
    }
    plugins = {each.plugin.name: {"type": each.plugin.type, "python": str(each.python)} for each in wanted}
    notes = {**parts.notes, "project": str(asked.project.root), "plugins": plugins}
    if asked.parameters.outputs:
        notes[OUTPUTS_START] = str(asked.place.output.parent)
    return Prepared(order=order, env=_environment(asked, parts.env), notes=notes)


def _parts(asked: Asked) -> _Parts:
    match asked.parameters:
        case SingerParameters() as parameters:
            return _singer(asked, parameters)
        case MeltanoParameters() as parameters:
            return _meltano(asked, parameters)
        case DbtParameters() as parameters:
            return _dbt(asked, parameters)
        case _:
            assert_never(asked.parameters)


def _singer(asked: Asked, parameters: SingerParameters) -> _Parts:
    pairs = list(_pairs(asked.project, parameters))
    plugins = {plugin.name: plugin for pair in pairs for plugin in pair.plugins}
    return _Parts(
        arguments=_singer_arguments(asked, parameters, pairs),
        plugins=tuple(plugins.values()),
        env=dict([*_settings(asked, parameters.config, tuple(plugins.values())), *_selections(parameters, pairs)]),
        states=[pair.state for pair in pairs if pair.state is not None],
        notes={
            "tap": pairs[0].tap.name,
            "pairs": [pair.note for pair in pairs],
            "full_refresh": parameters.full_refresh,
            "output_locations": {
                pair.target.name: _location(asked, pair.target, parameters.config.get(pair.target.name, {}))
                for pair in pairs
            },
        },
    )


def _pairs(project: Project, parameters: SingerParameters) -> Iterator[_Pair]:
    """Every tap with every target, tap by tap: what one tap reads is complete everywhere before the next one starts."""
    for tap_name in parameters.extractors:
        tap = project.plugin(tap_name, "extractors")
        mappings = tuple(for_tap(parameters.mappings, tap_name))
        mappers = tuple(project.mapper(each) for each in mappings)
        for target_name in parameters.loaders:
            target = project.plugin(target_name, "loaders")
            match parameters.state:
                case ExplicitState(id=id):
                    state: str | None = id
                case suffix:
                    state = project.state_id(tap.name, target.name, suffix)
            yield _Pair(tap, target, mappings, mappers, state)


def _singer_arguments(asked: Asked, parameters: SingerParameters, pairs: Sequence[_Pair]) -> list[str]:
    options = ["--no-install", "--run-id", _run_id(asked.name)]
    refresh = ["--full-refresh"] if parameters.full_refresh else []
    match parameters.state:
        case ExplicitState(id=id):
            # `run` knows no explicit ids, `el` no several pairs and no mappers
            return ["el", *options, "--state-id", id, *refresh, pairs[0].tap.name, pairs[0].target.name]
        case suffix:
            blocks = [block for pair in pairs for block in pair.blocks]
            return ["run", *options, *(["--state-id-suffix", suffix] if suffix else []), *refresh, *blocks]


def _selections(parameters: SingerParameters, pairs: Sequence[_Pair]) -> Iterator[tuple[str, str]]:
    for tap in {pair.tap.name: pair.tap for pair in pairs}.values():
        if patterns := for_tap(parameters.select, tap.name):
            yield tap.env_name("_select"), json.dumps(patterns)


def _meltano(asked: Asked, parameters: MeltanoParameters) -> _Parts:
    blocks = list(asked.project.blocks(parameters.args))
    named = (asked.project.find(each.partition(":")[0]) for each in blocks)
    runs = parameters.args[0] == "run"
    suffix = _value_of("--state-id-suffix", parameters.args)
    return _Parts(
        arguments=parameters.args,
        plugins=tuple({each.name: each for each in named if each is not None}.values()),
        env={},
        states=list(_state_ids(asked.project, blocks, suffix)) if runs else [],
        notes={},
    )


def _dbt(asked: Asked, parameters: DbtParameters) -> _Parts:
    plugin = next(
        (each for each in asked.project.plugins if each.type in ("utilities", "transformers") and "dbt" in each.name),
        None,
    )
    if plugin is None:
        present = ", ".join(each.name for each in asked.project.plugins) or "none"
        raise refuse(f"{asked.project.root.name} has no dbt plugin", f"plugins there: {present}")
    arguments = parameters.arguments if asked.retry is None else ["retry", "--state", str(asked.retry)]
    return _Parts(
        arguments=["invoke", plugin.name, *arguments],
        plugins=(plugin,),
        env={"DBT_TARGET_PATH": str(asked.work / dbt.TARGET), "DBT_USE_COLORS": "false"},
        states=[],
        notes={"retry": asked.retry is not None, "output_folder": str(asked.place.output)},
    )


def _state_ids(project: Project, blocks: Sequence[str], suffix: str) -> Iterator[str]:
    """Name the state of every tap that is followed by its target, mappers between them or not."""
    found = [plugin for each in blocks if (plugin := project.find(each)) is not None]
    pipes = [plugin for plugin in found if plugin.type in ("extractors", "loaders")]
    for tap, target in pairwise(pipes):
        is_pair = (tap.type, target.type) == ("extractors", "loaders")
        if is_pair and (state := project.state_id(tap.name, target.name, suffix)) is not None:
            yield state


def _value_of(option: str, arguments: Sequence[str]) -> str:
    for here, following in pairwise([*arguments, ""]):
        if here == option:
            return following
        if here.startswith(f"{option}="):
            return here.removeprefix(f"{option}=")
    return ""


def _settings(asked: Asked, config: Mapping[str, Mapping[str, Any]], plugins: Sequence[Plugin]) -> Iterator[Any]:
    """Spell the settings as environment variables. Meltano ignores those it does not know, so we do not."""
    by_name = {plugin.name: plugin for plugin in plugins}
    for name, values in config.items():
        if name not in by_name:
            raise refuse(f"`config` names {name}, which this step does not run", f"it runs {', '.join(by_name)}")
        plugin = by_name[name]
        for setting, value in values.items():
            if setting not in plugin.settings:
                known = ", ".join(sorted(plugin.settings)) or "none; meltano.yml has to list them under `settings`"
                raise refuse(f"{name} has no setting '{setting}'", f"it has: {known}")
            yield plugin.env_name(setting), _spelled(_expanded(value, asked.place.output))


def _expanded(value: Any, output: Path) -> Any:
    if isinstance(value, str):
        return value.replace(f"${{{OUTPUT_VARIABLE}}}", str(output)).replace(f"${OUTPUT_VARIABLE}", str(output))
    if isinstance(value, Mapping):
        return {key: _expanded(each, output) for key, each in value.items()}
    if isinstance(value, list):
        return [_expanded(each, output) for each in value]
    return value


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _location(asked: Asked, target: Plugin, config: Mapping[str, Any]) -> str | None:
    """Say where the target's files are, if it writes files. A URL may hold a password and is never told."""
    settings = {**target.config, **config}
    for name in _LOCATION_SETTINGS:
        value = _expanded(settings.get(name), asked.place.output)
        if isinstance(value, str) and value and ":" not in value and "$" not in value:
            return os.path.normpath(asked.project.root / value)
    return None


def _insist_on_installed(wanted: Sequence[_Wanted]) -> None:
    missing = [each.plugin.name for each in wanted if each.plugin.pip_url and not each.python.exists()]
    if missing:
        raise refuse(
            f"{', '.join(missing)}: not installed, and the step says `install: never`",
            "run `meltano install` in the project, or use `install: auto`",
            name="not installed",
        )


def _installs(asked: Asked, wanted: Sequence[_Wanted]) -> list[dict[str, Any]]:
    """Group what one `meltano install` does at once, side by side: the plugins that share a system folder."""
    groups: dict[str, list[dict[str, str]]] = {}
    for each in wanted:
        if each.plugin.pip_url:
            own = {
                "name": each.plugin.installed_as or each.plugin.name,
                "folder": str(each.folder),
                "fingerprint": each.fingerprint,
            }
            groups.setdefault(str(asked.place.plugin_root(each.plugin, each.fingerprint)), []).append(own)
    always = asked.parameters.install == "always"
    return [{"root": root, "plugins": plugins, "always": always} for root, plugins in groups.items()]


def _links(asked: Asked, system_root: Path, wanted: Sequence[_Wanted]) -> Iterator[tuple[str, str]]:
    """Give every run a system folder of its own: two runs of one tap share files in `run/` and break each other."""
    if asked.place.shared_plugins:
        for type_ in PLUGIN_TYPES:
            yield str(system_root / type_), str(asked.place.system / type_)
        return
    for each in wanted:
        if each.plugin.pip_url:
            yield str(system_root / each.plugin.type / each.folder.name), str(each.folder)


def _environment(asked: Asked, own: Mapping[str, str]) -> dict[str, str]:
    environment = {
        **base_environment(),
        **own,
        **asked.env,
        "MELTANO_DATABASE_URI": asked.place.database_uri,
        "XDG_STATE_HOME": str(asked.work / "log"),  # Meltano's own copy of the log goes with the attempt
        OUTPUT_VARIABLE: str(asked.place.output),
    }
    if asked.project.environment:
        environment["MELTANO_ENVIRONMENT"] = asked.project.environment
    return environment


def _run_id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))
