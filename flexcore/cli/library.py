"""The templates that come with FlexCore: folders with a workflow, copied to be changed."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import flexcore
from flexcore.cli.bundle import files_of_folder
from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.model.errors import AlreadyExists, InternalError, NotFound

WORKFLOW_FILE = "workflow.yaml"
_DESCRIPTION_FILE = "template.yaml"
_NAME_LINE = re.compile(r"^name:.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A template and what its `template.yaml` says of it. `parameters` is a JSON Schema or a list of them by name."""

    name: str
    folder: Path
    summary: str = ""
    description: str = ""
    runtime: str = ""
    parameters: Any = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Give the template as a plain document."""
        return {**asdict(self), "folder": str(self.folder)}


def library() -> Path:
    """Say where the templates are: inside the package, or beside it in a checkout."""
    package = Path(flexcore.__file__).parent
    packed = package / "_templates"
    return packed if packed.is_dir() else package.parent / "templates"


def templates(folder: Path | None = None) -> Sequence[Template]:
    """List the library by name."""
    found = (folder or library()).glob(f"*/{WORKFLOW_FILE}")
    return [_template(path.parent) for path in sorted(found)]


def template(name: str, folder: Path | None = None) -> Template:
    """Give one template. Raises NotFound with the names that are there."""
    known = templates(folder)
    for each in known:
        if each.name == name:
            return each
    present = ", ".join(each.name for each in known) or "none"
    raise NotFound(f"there is no template '{name}'", hint=f"templates: {present}")


def copy(source: Template, target: Path, name: str | None = None) -> None:
    """Copy a template into a new folder; `name` renames its workflow. Raises AlreadyExists, and overwrites nothing."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise AlreadyExists(f"{target} is there already", hint="choose another folder, or remove it first")
    for each in files_of_folder(source.folder):
        place = target / each.relative_to(source.folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(each, place)
    if name is not None:
        path = target / WORKFLOW_FILE
        path.write_text(_NAME_LINE.sub(f"name: {name}", path.read_text(encoding="utf-8"), count=1), encoding="utf-8")


def _template(folder: Path) -> Template:
    path = folder / _DESCRIPTION_FILE
    told = _mapping(path) if path.is_file() else {}
    texts = {key: str(told.get(key) or "") for key in ("summary", "description", "runtime")}
    return Template(name=folder.name, folder=folder, parameters=told.get("parameters") or {}, **texts)


def _mapping(path: Path) -> dict[str, Any]:
    findings = Findings(str(path))
    root, _ = compose(path.read_bytes(), findings)
    content = None if root is None else plain(root)
    if findings.sorted() or not isinstance(content, dict):
        raise InternalError(f"the template at {path.parent} is damaged", hint="install FlexCore again")
    return content
