"""Reads a Meltano project without Meltano: its plugins, settings, environments. Never writes, never runs anything.

Importing Meltano costs a second and binds the process to one project; the file format is small and stable.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

PLUGIN_TYPES = ("extractors", "loaders", "mappers", "transformers", "utilities", "orchestrators", "files")
PROJECT_FILE = "meltano.yml"


class BadProject(Exception):
    """The project cannot be used as asked: `message` says what is wrong, `hint` what is there."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plugin of the project, with what it inherits filled in. `type` is plural, as in meltano.yml."""

    name: str
    type: str
    pip_url: str = ""
    python: str = ""
    settings: frozenset[str] = frozenset()
    config: Mapping[str, Any] = field(default_factory=dict)
    installed_as: str = ""  # the plugin whose virtual environment this one uses
    mappings: tuple[str, ...] = ()  # of a mapper: the names by which `meltano run` calls it

    def env_name(self, setting: str) -> str:
        """Name the environment variable that Meltano reads a setting from: ONE underscore after the plugin."""
        return f"{self.name}_{setting}".replace("-", "_").replace(".", "_").upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What meltano.yml and the files that it includes say."""

    root: Path
    plugins: tuple[Plugin, ...]
    environment: str | None = None
    environments: tuple[str, ...] = ()
    database_uri: str | None = None
    state_backend: str | None = None
    state_suffix: str = ""  # what the environment adds to every state id
    jobs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name to blocks, in order

    def plugin(self, name: str, type_: str | None = None) -> Plugin:
        """Find a plugin by name. Raises BadProject that names those there are."""
        candidates = [each for each in self.plugins if type_ in (None, each.type)]
        for each in candidates:
            if each.name == name:
                return each
        present = ", ".join(each.name for each in candidates) or "none"
        what = (type_ or "plugins").rstrip("s")
        raise BadProject(f"{self.root.name} has no {what} '{name}'", f"{what}s there: {present}")

    def find(self, name: str) -> Plugin | None:
        """Find a plugin by name, or a mapper by the name of one of its mappings; or None."""
        by_name = (each for each in self.plugins if each.name == name)
        return next(by_name, None) or next((each for each in self.plugins if name in each.mappings), None)

    def mapper(self, mapping: str) -> Plugin:
        """Find the mapper of a mapping. Raises BadProject that names the mappings there are."""
        for each in self.plugins:
            if mapping in each.mappings:
                return each
        present = ", ".join(name for each in self.plugins for name in each.mappings) or "none"
        raise BadProject(f"{self.root.name} has no mapping '{mapping}'", f"mappings there: {present}")

    def state_id(self, tap: str, target: str, suffix: str = "") -> str | None:
        """Name the state of a pair, as Meltano does. Without an environment Meltano keeps no state."""
        if self.environment is None:
            return None
        parts = (self.environment, f"{tap}-to-{target}", suffix or self.state_suffix)
        return ":".join(part for part in parts if part)

    def blocks(self, names: Iterable[str]) -> Iterator[str]:
        """Put the blocks of its tasks in the place of each job, as `meltano run` does."""
        for name in names:
            yield from self.jobs.get(name, (name,))


def read_project(root: Path, *, environment: str | None = None, fallback: str | None = None) -> Project:
    """Read a project. `environment` replaces its default, `fallback` counts where it names none. Raises BadProject."""
    if not (root / PROJECT_FILE).is_file():
        raise BadProject(f"no Meltano project in {root.name}", f"there is no {PROJECT_FILE} in {root}")
    main = _load(root / PROJECT_FILE)
    parts = [main, *(_load(path) for path in _included(root, main))]
    names = tuple(str(each["name"]) for part in parts for each in _mappings(part.get("environments")) if "name" in each)
    active = environment or _text(main.get("default_environment")) or fallback
    if active is not None and active not in names:
        raise BadProject(f"{root.name} has no environment '{active}'", f"environments there: {', '.join(names) or '-'}")
    return Project(
        root=root,
        plugins=_plugins(root, parts, active),
        environment=active,
        environments=names,
        database_uri=_text(main.get("database_uri")) or _dotenv(root).get("MELTANO_DATABASE_URI"),
        state_backend=_text(_state_backend(main)),
        state_suffix=_state_suffix(parts, active),
        jobs=_jobs(parts),
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise BadProject(f"{path.name} is not valid YAML", " ".join(str(error).split())) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadProject(f"{path.name} cannot be read", str(error)) from error
    if not isinstance(content, Mapping):
        raise BadProject(f"{path.name} is not a mapping", "see https://docs.meltano.com/concepts/project")
    return content


def _included(root: Path, main: Mapping[str, Any]) -> Iterator[Path]:
    for pattern in main.get("include_paths") or ():
        yield from (path for path in sorted(root.glob(str(pattern))) if path != root / PROJECT_FILE)


def _plugins(root: Path, parts: list[Mapping[str, Any]], environment: str | None) -> tuple[Plugin, ...]:
    raw: dict[str, tuple[str, dict[str, Any]]] = {}
    for part in parts:
        for type_, entries in _mapping(part.get("plugins")).items():
            raw.update({str(each["name"]): (type_, dict(each)) for each in _mappings(entries) if "name" in each})
    overrides = _overrides(parts, environment)
    return tuple(_plugin(root, name, raw, overrides) for name in raw)


def _plugin(
    root: Path, name: str, raw: Mapping[str, tuple[str, dict[str, Any]]], overrides: Mapping[str, Mapping[str, Any]]
) -> Plugin:
    type_, own = raw[name]
    chain = [own]
    installed_as = name
    while (parent := _text(chain[-1].get("inherit_from")) or "") in raw and len(chain) <= len(raw):
        chain.append(raw[parent][1])
        if not chain[-2].get("pip_url"):
            installed_as = parent
    locked = _locked(root, type_, chain[-1])
    merged: dict[str, Any] = {}
    config: dict[str, Any] = {}
    settings: set[str] = set()
    for each in [locked, *reversed(chain)]:
        merged.update(each)
        config.update(_mapping(each.get("config")))
        settings.update(str(setting["name"]) for setting in _mappings(each.get("settings")) if "name" in setting)
    config.update(overrides.get(name, {}))
    return Plugin(
        name=name,
        type=type_,
        pip_url=_text(merged.get("pip_url")) or "",
        python=_text(merged.get("python")) or "",
        settings=frozenset(settings | set(config)),
        config=config,
        installed_as=installed_as,
        mappings=tuple(str(each["name"]) for each in _mappings(merged.get("mappings")) if "name" in each),
    )


def _locked(root: Path, type_: str, definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the definition that `meltano add` locked beside the project, if there is one."""
    variant = _text(definition.get("variant"))
    name = _text(definition.get("inherit_from")) or str(definition["name"])
    path = root / "plugins" / type_ / f"{name}{f'--{variant}' if variant else ''}.lock"
    try:
        return _mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _overrides(parts: list[Mapping[str, Any]], environment: str | None) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        for each in _mappings(part.get("environments")):
            if each.get("name") == environment:
                for entries in _mapping(_mapping(each.get("config")).get("plugins")).values():
                    found.update({str(one["name"]): _mapping(one.get("config")) for one in _mappings(entries)})
    return found


def _state_backend(main: Mapping[str, Any]) -> Any:
    return main.get("state_backend.uri") or _mapping(main.get("state_backend")).get("uri")


def _state_suffix(parts: list[Mapping[str, Any]], environment: str | None) -> str:
    found = (each for part in parts for each in _mappings(part.get("environments")) if each.get("name") == environment)
    return next((suffix for each in found if (suffix := _text(each.get("state_id_suffix")))), "")


def _jobs(parts: list[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Read the jobs. A task is a text of blocks, or a list of blocks."""
    return {
        str(each["name"]): tuple(_task_blocks(each.get("tasks")))
        for part in parts
        for each in _mappings(part.get("jobs"))
        if "name" in each
    }


def _task_blocks(tasks: Any) -> Iterator[str]:
    if isinstance(tasks, str):
        yield from tasks.split()
    elif isinstance(tasks, list):
        for each in tasks:
            yield from _task_blocks(each)


def _dotenv(root: Path) -> dict[str, str]:
    try:
        lines = (root / ".env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.removeprefix("export ").partition("=") for line in lines if "=" in line and line[:1] != "#")
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
