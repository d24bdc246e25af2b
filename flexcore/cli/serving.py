"""`flexcore runtime serve`: one runtime of this machine, open to control planes elsewhere.

Opens no store of executions: what it keeps is in `served/NAME` of the home folder. Must be loaded for this command
alone: it brings gRPC.
"""

import asyncio
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flexcore import bootstrap
from flexcore.api.remote.hosting import Create, Hosting
from flexcore.api.remote.server import ServeOptions, TlsFiles
from flexcore.api.remote.server import serve as serve_hosting
from flexcore.cli.options import Options
from flexcore.cli.render import say
from flexcore.cli.session import run, settings_of, tell_on_stderr
from flexcore.model.errors import InvalidRequest, InvalidSettings, PermissionDenied
from flexcore.runtime.interface import Runtime
from flexcore.runtime.plugin import ArtifactStore, RuntimeContext
from flexcore.runtime.registry import Registry, RuntimeSettings
from flexcore.security.authn import TokenVerifier, load_or_create_token, verifier_of
from flexcore.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What the command line says."""

    listen: str
    certificate: Path | None
    key: Path | None
    client_ca: Path | None
    token_file: Path | None


def serve(options: Options, name: str, serving: Serving) -> None:
    """Serve a runtime until interrupted. Raises InvalidRequest, InvalidSettings, PermissionDenied or Unavailable."""
    if options.server:
        raise InvalidRequest("a runtime is served from the machine it is configured on", hint="leave out --server")
    settings = settings_of(options)
    tell_on_stderr(settings.logs.level)
    tls = _tls(serving)
    folder = settings.home / "served" / name
    create = _creator(settings, name, folder)
    verifier, created = _verifier(serving.token_file, folder)
    given = ServeOptions(verifier=verifier, listen=serving.listen, tls=tls)

    def started(address: str) -> None:
        say(f"runtime {name} on {address}{' with TLS' if tls else ', for this machine only'}")
        if created is not None:
            say(f"token, shown only now: {created}")

    async def work() -> None:
        store = "s3" if settings.artifacts.url else "file"
        hosting = Hosting(create, folder, now=bootstrap.now, entropy=bootstrap.entropy, data_store=store)
        try:
            await serve_hosting(hosting, given, bootstrap.now, started, asyncio.Event())
        finally:
            await hosting.close()

    run(work)


def _creator(settings: Settings, name: str, folder: Path) -> Create:
    """Check the instance's settings now; make one for each installation that calls later."""
    instances = [
        RuntimeSettings(name=each, type=found.type, enabled=found.enabled, options=found.options)
        for each, found in settings.runtimes.items()
    ]
    artifacts = bootstrap.artifacts_of(settings)
    context = _context(artifacts, "nobody", folder / "examined")
    registry = Registry(instances, context)
    registry.get(name)
    plugin = registry.plugin(name)
    config = plugin.config.model_validate(dict(next(each.options for each in instances if each.name == name)))

    async def create(installation: str, own: Path) -> Runtime:
        return plugin.create(name, config, _context(artifacts, installation, own))

    return create


def _context(artifacts: Callable[[str, Path], ArtifactStore], installation: str, folder: Path) -> RuntimeContext:
    shelf = folder.parent / "artifacts"
    shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
    return RuntimeContext(
        installation=installation,
        state_folder=folder,
        artifacts=artifacts(installation, shelf),
        now=bootstrap.now,
    )


def _verifier(path: Path | None, folder: Path) -> tuple[TokenVerifier, str | None]:
    """Take the token of the file; without one, make it at the first start and give its text, this once."""
    if path is None:
        return load_or_create_token(folder)
    try:
        mode, text = path.stat().st_mode, path.read_text(errors="replace").strip()
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}", hint="--token-file is a file") from error
    if stat.S_IMODE(mode) & 0o077:
        raise PermissionDenied(f"{path} can be used by others than its owner", hint=f"chmod 600 {path}")
    return verifier_of(text), None


def _tls(serving: Serving) -> TlsFiles | None:
    if serving.certificate is None and serving.key is None:
        if serving.client_ca is not None:
            raise InvalidRequest("--client-ca needs TLS", hint="give --tls-cert and --tls-key too")
        return None
    if serving.certificate is None or serving.key is None:
        raise InvalidRequest("--tls-cert and --tls-key go together", hint="give both")
    return TlsFiles(certificate=serving.certificate, key=serving.key, client_ca=serving.client_ca)
