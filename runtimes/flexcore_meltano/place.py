"""Where a project keeps what outlives a run: plugins, the system database with the bookmarks, locks, output.

In the author's own folder that is the project's `.meltano`, as every user of Meltano expects. A deployed version is a
copy that the next version replaces: there all of it lives in a folder of the workflow's own, and an installation
carries its fingerprint in its name, so that two versions never change each other's plugins while they run.
"""

import hashlib
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from flexcore_meltano.project import Plugin, Project

_BUILD_FILES = ("pyproject.toml", "setup.py", "setup.cfg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The folders of one project. `database_uri` is Meltano's; `database` its file when it is SQLite."""

    system: Path
    output: Path
    database_uri: str
    shared_plugins: bool  # all plugins below `system`, as Meltano itself puts them

    @property
    def database(self) -> Path | None:
        """The file of the system database, if it is one."""
        prefix = "sqlite:///"
        uri = self.database_uri.partition("?")[0]
        return Path(uri.removeprefix(prefix)) if uri.startswith(prefix) and "$" not in uri else None

    def lock(self, name: str) -> Path:
        """Name a lock file that every FlexCore process using this project shares."""
        safe = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
        return self.system / "flexcore" / f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.lock"

    def plugin_root(self, plugin: Plugin, fingerprint: str) -> Path:
        """Name the folder that `meltano install` is told to use as its system folder for this plugin."""
        if self.shared_plugins:
            return self.system
        return self.system.parent / "plugins" / f"{plugin.installed_as or plugin.name}-{fingerprint[:12]}"

    def plugin_folder(self, plugin: Plugin, fingerprint: str) -> Path:
        """Name the folder that holds the plugin's virtual environment."""
        return self.plugin_root(plugin, fingerprint) / plugin.type / (plugin.installed_as or plugin.name)


def place_of(project: Project, *, state_folder: Path, deployed: bool, beside: Path, names: tuple[str, ...]) -> Place:
    """Say where a project's lasting things are. `names` tell deployed projects apart: workspace, workflow, project.

    Output goes to a folder `beside` the workflow, not into the project: what is in there belongs to the version.
    """
    if deployed:
        slug = "-".join(part for name in names if (part := re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")))
        unique = hashlib.sha256("\n".join(names).encode()).hexdigest()[:8]
        base = state_folder / "projects" / f"{slug[:80]}-{unique}"
        system, output = base / "system", base / "output"
    else:
        system, output = project.root / ".meltano", beside / "output"
    uri = (project.database_uri or "").replace("$MELTANO_SYS_DIR_ROOT", str(system))
    uri = uri.replace("$MELTANO_PROJECT_ROOT", str(project.root))
    return Place(
        system=system,
        output=output,
        database_uri=uri or f"sqlite:///{system / 'meltano.db'}",
        shared_plugins=not deployed,
    )


def is_deployed(folder: Path, state_folder: Path) -> bool:
    """Say whether a workflow's folder is FlexCore's own copy of a version: it then lies beside the runtimes' state."""
    home = state_folder.parent.parent if state_folder.parent.name == "runtimes" else state_folder.parent
    return folder.resolve().is_relative_to(home.resolve())


def fingerprint(plugin: Plugin, project: Project) -> str:
    """Name what an installation of the plugin would be made from. Another fingerprint needs another installation.

    Of a package inside the project the content counts; of an editable one only what its installation depends on.
    """
    parts = [plugin.pip_url, plugin.python]
    editable = False
    for word in shlex.split(plugin.pip_url):
        if word in ("-e", "--editable"):
            editable = True
            continue
        local = project.root / word
        if word.startswith((".", "/")) and local.is_dir():
            parts.append(str(local.resolve()))
            parts.extend(_contents(local, editable=editable))
        editable = False
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _contents(folder: Path, *, editable: bool) -> list[str]:
    files = (folder / name for name in _BUILD_FILES) if editable else sorted(folder.rglob("*"))
    return [
        f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        for path in files
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]
