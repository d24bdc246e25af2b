"""What a NAME on the command line stands for: a file, a workflow that is deployed, or a template that is copied first.

In this order: a path, `./NAME.yaml`, `./NAME/workflow.yaml`, a deployed workflow, a template of the library.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from flexcore.cli.bundle import collect, pointing_at
from flexcore.cli.library import WORKFLOW_FILE, copy, templates
from flexcore.cli.options import Options
from flexcore.cli.render import say
from flexcore.cli.session import settings_of
from flexcore.model.errors import InvalidDefinition, NotFound
from flexcore.model.ids import WORKFLOW_NAME
from flexcore.model.requests import Bundle, ControlPlaneApi, Document


@dataclass(frozen=True, slots=True)
class Local:
    """A workflow file of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class Deployed:
    """A workflow that the control plane knows, as it describes it."""

    document: Document


Found: TypeAlias = Local | Deployed


async def resolve(api: ControlPlaneApi, name: str, folder: Path, options: Options) -> Found:
    """Find what a name stands for; copies a template and says so. Raises NotFound with the places looked at."""
    local = local_file(name, folder)
    if local is not None:
        return Local(local)
    if not WORKFLOW_NAME.fullmatch(name):
        raise NotFound(f"there is no workflow file {name}")
    try:
        return Deployed(await api.workflow(name, workspace=options.workspace))
    except NotFound as error:
        return _from_library(name, folder, options, error)


async def deployed(api: ControlPlaneApi, name: str, folder: Path, options: Options) -> Document:
    """Resolve, deploying what is a file; give at least `name`, `version` and `text`."""
    match await resolve(api, name, folder, options):
        case Local(path=path):
            return await deploy(api, path, options)
        case Deployed(document=document):
            return document


async def deploy(api: ControlPlaneApi, path: Path, options: Options) -> Document:
    """Deploy a file with all that belongs to it."""
    return await deploy_bundle(api, collect(path, bundle_limit(options)), path, options)


async def deploy_bundle(api: ControlPlaneApi, bundle: Bundle, path: Path, options: Options) -> Document:
    """Deploy what was read from a file, or would stand in it."""
    try:
        document = {"text": bundle.text, **await api.deploy(bundle, options.workspace)}
    except InvalidDefinition as error:
        raise InvalidDefinition([pointing_at(each, path, bundle) for each in error.diagnostics]) from error
    if document.get("pinned") not in (None, document["version"]):
        say(f"{document['name']} is pinned to {document['pinned']}; this is {document['version']}, as {path} has it")
    return document


def bundle_limit(options: Options) -> int:
    """Say how large a workflow with its files may be, by this machine's settings; a server has its own say, too."""
    return settings_of(options).limits.bundle_bytes


def local_file(name: str, folder: Path) -> Path | None:
    """Find the workflow file that a name means in a folder, if there is one."""
    given = Path(name)
    candidates = (given, given / WORKFLOW_FILE, Path(f"{name}.yaml"))
    # The path itself wins; a folder without a workflow does not hide `NAME.yaml` beside it.
    order = (candidates[0], candidates[2], candidates[1])
    return next((each for each in order if (folder / each).is_file()), None)


def _from_library(name: str, folder: Path, options: Options, error: NotFound) -> Local:
    configured = settings_of(options).workflow_templates
    known = {each.name: each for each in templates(configured)}
    if name not in known:
        places = f"./{name}.yaml, ./{name}/{WORKFLOW_FILE}, what is deployed, and the templates ({', '.join(known)})"
        raise NotFound(f"there is no workflow '{name}'", hint=f"looked at {places}") from error
    copy(known[name], folder / name)
    say(f"copied template {name} to ./{name}")
    return Local(Path(name) / WORKFLOW_FILE)
