"""The templates: folders with a workflow, copied to be changed. They come with FlexCore or stand in the settings."""

import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import flexcore
from flexcore.cli.bundle import collect, files_of_folder
from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.model.errors import AlreadyExists, InternalError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from flexcore.settings import TemplateSettings

NONE: "Mapping[str, TemplateSettings]" = MappingProxyType({})
WORKFLOW_FILE = "workflow.yaml"
_ANY_RUNTIME = "auto"
_DESCRIPTION_FILE = "template.yaml"
_MOST_BYTES = 1_000_000_000  # a copy is no deployment: that has the limit of the settings
_NAME_LINE = re.compile(r"^name:.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template and what its `template.yaml` says of it. `parameters` has the JSON Schema of each input by name."""

    name: str
    folder: Path
    file: str = WORKFLOW_FILE
    origin: str = "library"
    enabled: bool = True
    summary: str = ""
    description: str = ""
    runtime: str = ""
    requires: Sequence[str] = ()
    parameters: Any = field(default_factory=dict)

    def document(self, runtimes: Collection[str]) -> dict[str, Any]:
        """Give the template as a plain document; `runtimes` are names and types of those that may be used."""
        status = "ready" if self.enabled else "disabled"
        if self.enabled and self.runtime not in ("", _ANY_RUNTIME, *runtimes):
            status = f"needs {self.runtime}"
        return {**asdict(self), "folder": str(self.folder), "status": status}


def library() -> Path:
    """Say where the templates are: inside the package, or beside it in a checkout."""
    package = Path(flexcore.__file__).parent
    packed = package / "_templates"
    return packed if packed.is_dir() else package.parent / "templates"


def templates(configured: "Mapping[str, TemplateSettings]" = NONE) -> Sequence[Template]:
    """List the library and what the settings add to it, by name; the settings' own hide those of the library."""
    found = {path.parent.name: _template(path) for path in library().glob(f"*/{WORKFLOW_FILE}")}
    found |= {name: _configured(name, each) for name, each in configured.items()}
    return [found[name] for name in sorted(found)]


def template(name: str, configured: "Mapping[str, TemplateSettings]" = NONE) -> Template:
    """Give one template. Raises NotFound with the names that are there."""
    known = {each.name: each for each in templates(configured)}
    if name not in known:
        present = ", ".join(known) or "none"
        raise NotFound(f"there is no template '{name}'", hint=f"templates: {present}")
    return known[name]


def copy(source: Template, target: Path, name: str | None = None) -> None:
    """Copy a template into a new folder; `name` renames its workflow. Overwrites nothing.

    Raises AlreadyExists, and InvalidRequest if the settings disable it.
    """
    if not source.enabled:
        where = f"workflow_templates.{source.name}.enabled"
        raise InvalidRequest(f"template '{source.name}' is disabled", hint=f"the setting {where} is false")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExists(f"{target} is there already", hint="choose another folder, or remove it first")
    if source.file == WORKFLOW_FILE:
        _copy_folder(source.folder, target)
    else:
        _copy_workflow(source.folder / source.file, target)
    if name is not None:
        path = target / WORKFLOW_FILE
        path.write_text(_NAME_LINE.sub(f"name: {name}", path.read_text(encoding="utf-8"), count=1), encoding="utf-8")


def _copy_folder(source: Path, target: Path) -> None:
    for each in files_of_folder(source):
        place = target / each.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(each, place)


def _copy_workflow(file: Path, target: Path) -> None:
    """Copy a file that shares its folder with others: itself and what it names."""
    bundle = collect(file, _MOST_BYTES)
    for name, content in {WORKFLOW_FILE: bundle.text.encode(), **bundle.files}.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _configured(name: str, settings: "TemplateSettings") -> Template:
    path = Path(settings.file)
    if not path.is_file():  # it is disabled, then: the settings see to the others
        return Template(name=name, folder=path.parent, file=path.name, origin="settings", enabled=False)
    found = _template(path)
    return replace(
        found, name=name, origin="settings", enabled=settings.enabled, runtime=settings.runtime or found.runtime
    )


def _template(path: Path) -> Template:
    """Read a workflow's description: from `template.yaml` where it has a folder of its own, else from itself."""
    workflow = _mapping(path)
    beside = path.with_name(_DESCRIPTION_FILE)
    told = _mapping(beside) if path.name == WORKFLOW_FILE and beside.is_file() else {}
    inputs = workflow.get("inputs")
    return Template(
        name=path.parent.name,
        folder=path.parent,
        file=path.name,
        summary=str(told.get("summary") or workflow.get("description") or ""),
        description=str(told.get("description") or ""),
        runtime=str(told.get("runtime") or ""),
        requires=tuple(map(str, told.get("requires") or ())),
        parameters=told.get("parameters") or (inputs.get("properties") if isinstance(inputs, dict) else None) or {},
    )


def _mapping(path: Path) -> dict[str, Any]:
    findings = Findings(str(path))
    root, _ = compose(path.read_bytes(), findings)
    content = None if root is None else plain(root)
    if findings.sorted() or not isinstance(content, dict):
        raise InternalError(f"the template at {path} is damaged", hint="correct it, or install FlexCore again")
    return content
