"""The commands that look after an installation: always local, but for what the server then serves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flexcore.cli.options import options_of
from flexcore.cli.render import clean, emit, painted, table
from flexcore.cli.session import run, settings_of, tell_on_stderr

app = typer.Typer(rich_markup_mode=None, add_completion=False)
config = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The settings in force.")
app.add_typer(config, name="config")

_FAULTS = 1


@app.command()
def verify(context: typer.Context) -> None:
    """Prove, offline, that every execution's state is what its history says."""
    from flexcore import bootstrap  # brings everything

    options = options_of(context)
    settings = settings_of(options)
    tell_on_stderr(settings.logs.level)
    faults = run(lambda: bootstrap.verify(settings))
    document = {
        "ok": not faults,
        "faults": [{"execution": each.execution, "message": each.message} for each in faults],
    }
    lines = [f"{each.execution}: {clean(each.message)}" for each in faults] or ["no faults"]
    emit(options, document, lines)
    raise typer.Exit(_FAULTS if faults else 0)


@app.command()
def doctor(context: typer.Context) -> None:
    """Check this machine: what is there, what is missing, and what to do about it."""
    from flexcore import bootstrap  # brings everything

    options = options_of(context)
    settings = settings_of(options)
    tell_on_stderr(settings.logs.level)
    checks = run(lambda: bootstrap.doctor(settings))
    keys = ("name", "ok", "detail", "hint")
    found = [{key: getattr(each, key) for key in keys} for each in checks]
    rows = [("ok" if each["ok"] else "failed", each["name"], each["detail"]) for each in found]
    lines = table(("", "CHECK", "FOUND"), rows)
    lines += [f"{each['name']}: {clean(each['hint'])}" for each in found if not each["ok"] and each["hint"]]
    emit(options, {"ok": all(each["ok"] for each in found), "checks": found}, lines)
    raise typer.Exit(0 if all(each["ok"] for each in found) else _FAULTS)


@config.command("show")
def config_show(
    context: typer.Context, origin: Annotated[bool, typer.Option("--origin", help="Say where each is from.")] = False
) -> None:
    """Print every setting in force, secrets hidden."""
    from flexcore.settings import load  # brings the YAML reader

    options = options_of(context)
    found = load(Path.cwd(), config=options.config).origins
    document = {
        key: {"value": each.value, "origin": each.source} if origin else each.value for key, each in found.items()
    }
    rows = [(key, _shown(each.value), each.source) for key, each in found.items()]
    emit(options, document, table(("KEY", "VALUE", "FROM"), rows) if origin else [f"{a}: {b}" for a, b, _ in rows])


@app.command()
def server(
    context: typer.Context,
    http: Annotated[str | None, typer.Option(metavar="ADDR", help="Such as 127.0.0.1:8080.")] = None,
    grpc: Annotated[str | None, typer.Option(metavar="ADDR", help="Such as 127.0.0.1:9090.")] = None,
) -> None:
    """Serve the HTTP and gRPC APIs on loopback until interrupted."""
    from flexcore import bootstrap  # brings everything

    settings = settings_of(options_of(context), server__http=http, server__grpc=grpc)
    tell_on_stderr(settings.logs.level)
    # The server answers Ctrl-C and SIGTERM itself, from when it listens.
    run(lambda: bootstrap.serve(settings))


def _shown(value: Any) -> str:
    return painted(str(value).lower()) if isinstance(value, bool) else str(value)
