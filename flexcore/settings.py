"""The settings: one tree of frozen values, every key with its type, default, unit and sentence.

Only this module reads settings from files and the environment, and only `bootstrap` and the command line import it.
Later layers win: defaults, the file, `FLEXCORE_SECTION__KEY` variables, flags. What is wrong is refused by name;
nothing is guessed. A runtime's own options are passed on untouched: its plug-in checks them, the core never knows them.

Plain dataclasses on purpose: reading the tree costs milliseconds, and so do commands that need it.
"""

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from flexcore.model.errors import InvalidSettings
from flexcore.model.ids import WORKFLOW_NAME
from flexcore.model.units import format_duration
from flexcore.model.values import JSON
from flexcore.settings_layers import NAMED, Given, from_environment, from_file, settings_file
from flexcore.settings_values import Amounts, Key, typed

Default = TypeVar("Default")

_KEY = "key"
_PASSWORD_IN_URL = re.compile(r"(://[^/:@\s]*):[^/@\s]+@")
_SECRET_OPTION = re.compile(r"token|secret|password|api_?key", re.IGNORECASE)


def _key(
    default: Default,
    sentence: str,
    *,
    is_size: bool = False,
    least: float | None = None,
    secret: bool = False,
    choices: tuple[str, ...] = (),
    never: bool = False,
) -> Default:
    return field(default=default, metadata={_KEY: Key(sentence, is_size, least, secret, choices, never)})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Where definitions and history are kept."""

    url: str = _key("", "sqlite:///PATH; empty: flexcore.db in the home folder (.flexcore, or FLEXCORE_HOME).")


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSettings:
    """Where large values and the data between steps are kept. Changing it moves nothing that is there."""

    url: str = _key("", "s3://BUCKET or s3://BUCKET/PREFIX; empty: a folder of the store, on this machine.")
    endpoint: str = _key("", "URL of the object store's server, as jobs reach it too; empty: Amazon's.")
    region: str = _key("", "Region of the bucket; empty: as the environment says.")
    access_key: str = _key("", "Name of the key; empty: credentials of the environment or the machine.", secret=True)
    secret_key: str = _key("", "The key itself.", secret=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What `flexcore server` listens on. Only loopback addresses are accepted."""

    http: str = _key("127.0.0.1:8080", "Address of the HTTP API; port 0 takes a free one.")
    grpc: str = _key("127.0.0.1:9090", "Address of the gRPC API; port 0 takes a free one.")
    token: str = _key("", "Token that callers must send; empty: made at the first start and shown once.", secret=True)
    body_bytes: int = _key(64_000_000, "Largest request accepted.", is_size=True, least=1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings:
    """How steps are placed and tried again."""

    placement: str = _key(
        "balanced",
        "What placement is after, by what it has learned: fastest, balanced, cheapest, or deadline (the least money "
        "that makes it); rules: the tables alone.",
        choices=("fastest", "balanced", "cheapest", "deadline", "rules"),
    )
    seconds_per_unit: float = _key(
        600.0, "Seconds that one unit of the currency of prices is worth where time and money are weighed.", least=0
    )
    intensive_cpu: float = _key(8.0, "From this many CPUs on, a step counts as resource-intensive.", least=0)
    intensive_memory_bytes: int = _key(
        32_000_000_000, "From this much memory on, a step counts as resource-intensive.", is_size=True, least=0
    )
    intensive_gpu: float = _key(1.0, "From this many GPUs on, a step counts as resource-intensive.", least=0)
    recheck: timedelta = _key(
        timedelta(seconds=10), "How often a step without a usable runtime is looked at again.", least=0.1
    )
    infrastructure_attempts: int = _key(
        3, "Tries for work that was lost, evicted or over quota; they never use up a step's own.", least=1
    )
    grace: timedelta = _key(timedelta(seconds=30), "Time that cancelled work gets before it is killed.", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """How large anything may grow."""

    inline_bytes: int = _key(
        256 * 1024, "Larger values between steps go to the artifact store.", is_size=True, least=1024
    )
    bundle_bytes: int = _key(50_000_000, "Largest workflow with all its files.", is_size=True, least=1024)
    foreach_items: int = _key(10_000, "Items of one foreach.", least=1)
    depth: int = _key(16, "Sub-workflows inside sub-workflows.", least=1)
    queue: int = _key(10_000, "Unfinished executions of one store; more are refused.", least=1)
    tags: Amounts = _key(
        (),
        "Attempts at a time of steps that require a tag, by tag: {gpu: 2}. Others wait. No entry: no limit.",
        least=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionSettings:
    """The budget of one JavaScript expression, and who evaluates them."""

    budget_seconds: float = _key(0.5, "Time for one expression, in seconds.", least=0.01)
    memory_bytes: int = _key(32_000_000, "Memory for one expression.", is_size=True, least=1_000_000)
    processes: int = _key(0, "Child processes that evaluate; 0: one per core, at most 4.", least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """Output of steps, and FlexCore's own messages."""

    attempt_bytes: int = _key(
        16 * 1024 * 1024, "Output kept per attempt: its head and its tail.", is_size=True, least=1024
    )
    level: str = _key("warning", "How much FlexCore says itself.", choices=("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long what nobody needs any more is kept; `never` (or 0) keeps it for ever."""

    executions: timedelta = _key(
        timedelta(days=30), "Finished executions with their history, counted from their end.", least=0, never=True
    )
    keep_last: int = _key(0, "So many executions of each workflow stay however old they are.", least=0)
    logs: timedelta = _key(timedelta(days=30), "Output of steps, from the execution's end.", least=0, never=True)
    artifacts: timedelta = _key(
        timedelta(days=30),
        "Content that nothing refers to, since it was last stored; an hour at least.",
        least=0,
        never=True,
    )
    cache: timedelta = _key(
        timedelta(hours=1), "Cached results, from when they have expired; an hour at least.", least=0, never=True
    )
    audit: timedelta = _key(timedelta(days=365), "Lines of the audit trail.", least=0, never=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeSettings:
    """A named runtime. `options` has every other key of its section, for the plug-in to check."""

    type: str = _key("", "Kind of runtime, the name of its plug-in; empty: the same as its own name.")
    enabled: bool = _key(True, "Whether steps may go there.")
    priority: int = _key(
        100, "Order of the fallback when the rules' choice cannot have a step; lower is first.", least=0
    )
    health_check_interval: timedelta = _key(
        timedelta(seconds=30), "How long an answer about its health is good for.", least=0.1
    )
    concurrency: int = _key(
        0, "Attempts at a time, over all processes on the store; others wait. 0: no limit.", least=0
    )
    price_per_hour: float = _key(
        0.0, "What an hour of an attempt there costs, in any one currency. 0: what it says itself, if it does.", least=0
    )
    tags: frozenset[str] = _key(
        frozenset(), "What it has beyond its kind, such as [gpu, eu]: steps that require a tag go where it is."
    )
    options: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSettings:
    """A workflow of one's own that is offered beside the library's templates. `file` is absolute once it is loaded."""

    file: str = _key("", "Workflow file, or folder with a workflow.yaml; relative to the working folder.")
    runtime: str = _key("", "Runtime for every step that it can run, unless --runtime names another; empty: none.")
    enabled: bool = _key(True, "Whether it may be used; one that is not is listed, and refused.")


_DEFAULT_RUNTIMES: Mapping[str, RuntimeSettings] = MappingProxyType(
    {
        "local": RuntimeSettings(type="local", priority=0),
        "meltano": RuntimeSettings(type="meltano", priority=1),
        "ray": RuntimeSettings(type="ray", priority=2),  # on this machine, started by the first step that needs it
    }
)

_OTHER_TYPES: Mapping[str, RuntimeSettings] = MappingProxyType(
    {"kubernetes": RuntimeSettings(type="kubernetes", priority=3)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set. `home` is where state lives: `FLEXCORE_HOME`, else `.flexcore` of the folder."""

    home: Path
    store: StoreSettings = StoreSettings()
    artifacts: ArtifactSettings = ArtifactSettings()
    server: ServerSettings = ServerSettings()
    policy: PolicySettings = PolicySettings()
    limits: LimitSettings = LimitSettings()
    expressions: ExpressionSettings = ExpressionSettings()
    logs: LogSettings = LogSettings()
    retention: RetentionSettings = RetentionSettings()
    runtimes: Mapping[str, RuntimeSettings] = field(default_factory=lambda: dict(_DEFAULT_RUNTIMES))
    workflow_templates: Mapping[str, TemplateSettings] = field(default_factory=dict)


SECTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "store": StoreSettings,
        "artifacts": ArtifactSettings,
        "server": ServerSettings,
        "policy": PolicySettings,
        "limits": LimitSettings,
        "expressions": ExpressionSettings,
        "logs": LogSettings,
        "retention": RetentionSettings,
    }
)


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting as it is shown: secrets hidden, `${…}` as written; and where it came from."""

    value: JSON
    source: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings and the origin of each key, by its dotted name."""

    settings: Settings
    origins: Mapping[str, Origin]


def load(
    folder: Path,
    *,
    config: Path | None = None,
    flags: Mapping[str, JSON] = MappingProxyType({}),
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read the settings for work in a folder. `flags` are by dotted name. Raises InvalidSettings naming the key.

    >>> load(Path("/tmp"), environ={"FLEXCORE_LOGS__LEVEL": "info"}).settings.logs.level
    'info'
    """
    variables = os.environ if environ is None else environ
    home = home_folder(folder, variables)
    path = settings_file(folder, home, config, variables)
    given = from_file(path, variables) if path else {}
    given |= from_environment(variables, {name: _names(name, given) for name in NAMED}, _all_keys())
    given |= {key: Given(value, "flag", value) for key, value in flags.items()}
    for key, each in given.items():
        _check_known(key, each)
    return _built(folder, home, given)


def home_folder(folder: Path, environ: Mapping[str, str] | None = None) -> Path:
    """Say where the state of work in a folder is."""
    variables = os.environ if environ is None else environ
    return (folder / (variables.get("FLEXCORE_HOME") or ".flexcore")).absolute()


def render_defaults() -> str:
    """Write `config/flexcore.yaml`: every key with its default and its sentence."""
    lines = ["# Every setting of FlexCore with its default. Generated from flexcore/settings.py: do not edit it here."]
    for name, section in SECTIONS.items():
        lines += ["", f"# {section.__doc__}", f"{name}:", *_rendered(section(), "  ")]
    lines += ["", "# Places that run work, by name. The other keys of a section belong to its plug-in.", "runtimes:"]
    for name, runtime in _DEFAULT_RUNTIMES.items():
        lines += [f"  {name}:", *_rendered(runtime, "    ")]
    lines += ["", "# Workflows offered beside the templates of the library, by name.", "workflow_templates: {}"]
    lines += [f"#   NAME: {{{', '.join(_keys(TemplateSettings))}}}"]
    lines += [f"#     {name}: {key.sentence}" for name, key in _keys(TemplateSettings).items()]
    return "\n".join([*lines, ""])


def _rendered(holder: Any, indent: str) -> Iterator[str]:
    for name, key in _keys(type(holder)).items():
        yield f"{indent}# {key.sentence}"
        yield f"{indent}{name}: {json.dumps(_plain(getattr(holder, name)))}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return dict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    return format_duration(value) if isinstance(value, timedelta) else value


def _keys(section: type[Any]) -> dict[str, Key]:
    return {each.name: each.metadata[_KEY] for each in fields(section) if _KEY in each.metadata}


def _names(section: str, given: Mapping[str, Given]) -> dict[str, str]:
    """Map the names in a section, as variables spell them, to the names themselves."""
    named = {key.split(".")[1] for key in given if key.startswith(f"{section}.")}
    if section == "runtimes":
        named |= set(_DEFAULT_RUNTIMES)
    return {name.lower().replace("-", "_"): name for name in named}


def _all_keys() -> list[str]:
    plain_keys = [f"{section}.{name}" for section, kind in SECTIONS.items() for name in _keys(kind)]
    return plain_keys + [f"runtimes.{name}.{key}" for name in _DEFAULT_RUNTIMES for key in _keys(RuntimeSettings)]


def _check_known(key: str, given: Given) -> None:
    section, _, rest = key.partition(".")
    if given.value in (None, {}) and (not rest or section in NAMED):
        rest, is_known = "", section in (*SECTIONS, *NAMED)
    elif section in SECTIONS:
        is_known = rest in _keys(SECTIONS[section])
    elif section == "workflow_templates":
        is_known = rest.partition(".")[2] in _keys(TemplateSettings)
    else:
        is_known = section == "runtimes" and "." in rest
    if is_known:
        return
    if section in SECTIONS and not rest:
        raise InvalidSettings(f"{given.source}: the setting {section} is a section, not a value")
    if section == "workflow_templates":
        hint = f"it is a mapping of names to {', '.join(_keys(TemplateSettings))}"
    else:
        known = _keys(SECTIONS[section]) if section in SECTIONS else [*SECTIONS, *NAMED]
        hint = _nearest(rest if section in SECTIONS else section, known)
    raise InvalidSettings(f"{given.source}: unknown setting {key}", hint=hint)


def _nearest(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(names)}"


def _built(folder: Path, home: Path, given: Mapping[str, Given]) -> Loaded:
    origins: dict[str, Origin] = {}
    sections = {name: _section(kind(), name, given, origins) for name, kind in SECTIONS.items()}
    if not sections["store"].url:
        url = f"sqlite:///{home / 'flexcore.db'}"
        sections["store"] = StoreSettings(url=url)
        origins["store.url"] = Origin(url, "default")
    runtimes = {name: _runtime(name, given, origins) for name in sorted(_names("runtimes", given).values())}
    names = sorted(_names("workflow_templates", given).values())
    templates = {name: _template(name, folder, runtimes, given, origins) for name in names}
    return Loaded(Settings(home=home, runtimes=runtimes, workflow_templates=templates, **sections), origins)


def _section(defaults: Any, prefix: str, given: Mapping[str, Given], origins: dict[str, Origin]) -> Any:
    values = {}
    for name, key in _keys(type(defaults)).items():
        default, each = getattr(defaults, name), given.get(f"{prefix}.{name}")
        values[name] = default if each is None else typed(f"{prefix}.{name}", each, key, default)
        shown = _plain(default) if each is None else each.written
        hidden = key.secret and shown
        origins[f"{prefix}.{name}"] = Origin(
            "***" if hidden else _without_password(shown), each.source if each else "default"
        )
    options = getattr(defaults, "options", None)
    return type(defaults)(**values) if options is None else type(defaults)(**values, options=options)


def _runtime(name: str, given: Mapping[str, Given], origins: dict[str, Origin]) -> RuntimeSettings:
    prefix = f"runtimes.{name}"
    known = _keys(RuntimeSettings)
    options = {
        key.removeprefix(f"{prefix}."): each
        for key, each in given.items()
        if key.startswith(f"{prefix}.") and key.removeprefix(f"{prefix}.") not in known
    }
    for key, each in options.items():
        shown = "***" if _SECRET_OPTION.search(key) else _without_password(each.written)
        origins[f"{prefix}.{key}"] = Origin(shown, each.source)
    stated = given.get(f"{prefix}.type")
    type_ = name if stated is None else str(stated.value)  # an instance of any name has the defaults of its type
    defaults = {**_OTHER_TYPES, **_DEFAULT_RUNTIMES}.get(type_, RuntimeSettings(type=name))
    values = {key: _option(each) for key, each in options.items()}
    with_options = RuntimeSettings(**{key: getattr(defaults, key) for key in known}, options=_nested(values))
    built: RuntimeSettings = _section(with_options, prefix, given, origins)
    return built if built.type else replace(built, type=name)


def _template(
    name: str, folder: Path, runtimes: Iterable[str], given: Mapping[str, Given], origins: dict[str, Origin]
) -> TemplateSettings:
    """Read a template and see that it is there. One that is switched off may be missing."""
    prefix = f"workflow_templates.{name}"
    read: TemplateSettings = _section(TemplateSettings(), prefix, given, origins)
    path = (folder / read.file).absolute()
    source = origins[f"{prefix}.file"].source
    if not WORKFLOW_NAME.fullmatch(name):
        raise InvalidSettings(f"{prefix} is not the name of a workflow", hint="small letters, digits, - and _")
    if not read.file:
        raise InvalidSettings(f"the setting {prefix}.file is missing", hint=_keys(TemplateSettings)["file"].sentence)
    file = path / "workflow.yaml" if path.is_dir() else path
    if read.enabled and not file.is_file():
        hint = f"put it there, or set {prefix}.enabled to false"
        raise InvalidSettings(f"{source}: there is no file {file} for the setting {prefix}.file", hint=hint)
    if read.runtime and read.runtime not in runtimes:
        hint = f"runtimes: {', '.join(runtimes)}"
        raise InvalidSettings(f"the setting {prefix}.runtime names no runtime: {read.runtime}", hint=hint)
    return replace(read, file=str(file))


def _nested(values: Mapping[str, JSON]) -> dict[str, JSON]:
    """Put what came as `a.b` (from a variable with one more `__`) into `a`."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        *above, last = key.split(".")
        place = result
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return result


def _option(given: Given) -> JSON:
    """Give a plug-in's option; from the environment it is JSON when it can be read so, else text."""
    if not given.source.startswith("environment"):
        value: JSON = given.value
        return value
    with suppress(ValueError):
        parsed: JSON = json.loads(given.value)
        return parsed
    return str(given.value)


def _without_password(value: JSON) -> JSON:
    return _PASSWORD_IN_URL.sub(r"\1:***@", value) if isinstance(value, str) else value
