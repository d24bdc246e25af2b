"""What the commands about Meltano know of a project: where it is, its pipelines, and what the settings say of it.

Reads files, and changes none.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flexcore.cli.options import Options
from flexcore.cli.session import settings_of
from flexcore.language.meltano_project import Pipelines, Source, included, looks_like_project, read_pipelines
from flexcore.model.errors import InvalidRequest, NotFound

PROJECT_FILE = "meltano.yml"
_RUNTIME_TYPE = "meltano"


@dataclass(frozen=True, slots=True)
class LocalProject:
    """A Meltano project of this machine."""

    root: Path
    pipelines: Pipelines


def runtime_options(options: Options) -> Mapping[str, Any]:
    """Give what the settings say to the first enabled runtime that runs Meltano."""
    runtimes = settings_of(options).runtimes.values()
    return next((each.options for each in runtimes if each.type == _RUNTIME_TYPE and each.enabled), {})


def project_folder(project: str, options: Options) -> Path:
    """Find a project by its folder, its meltano.yml, or its name in the settings. Raises NotFound."""
    given = Path(project)
    folder = given.parent if given.name == PROJECT_FILE else given
    if (folder / PROJECT_FILE).is_file():
        return folder
    configured = runtime_options(options).get("projects")
    known = configured if isinstance(configured, Mapping) else {}  # the runtime itself says what is wrong with it
    if project in known:
        return Path(str(known[project]))
    hint = f"projects in the settings: {', '.join(known)}" if known else "name the folder by --project"
    raise NotFound(f"there is no {PROJECT_FILE} in {folder}", hint=hint)


def local_project(file: Path) -> LocalProject:
    """Read a project by its main file, with the files that it includes. Raises NotFound, InvalidDefinition."""
    main = _source(file)
    root = file.parent
    others = [each for pattern in included(main) for each in _matching(root, pattern, main.name)]
    sources = [main, *(_source(each) for each in dict.fromkeys(others) if each != file)]
    return LocalProject(root, read_pipelines(sources))


def is_project(file: Path) -> bool:
    """Say whether a file looks like a Meltano project's, whatever it is called."""
    return looks_like_project(_source(file))


def _matching(root: Path, pattern: str, file: str) -> list[Path]:
    try:
        return [each for each in sorted(root.glob(pattern)) if each.is_file()]
    except (ValueError, NotImplementedError, IndexError) as error:  # what the library says of absolute and odd ones
        raise InvalidRequest(
            f"{file}: '{pattern}' in `include_paths` is no pattern of files in the project",
            hint="write it relative to the project, such as ./pipelines/*.yml",
        ) from error


def _source(path: Path) -> Source:
    try:
        return Source(str(path), path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise NotFound(f"{path} cannot be read: {reason}") from error
