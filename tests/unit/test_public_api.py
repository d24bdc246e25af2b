"""What others build on: the package itself, the control plane in its two forms, the runtimes that are found."""

import inspect
import subprocess
import sys
from importlib.metadata import entry_points

import flexcore
from flexcore.controlplane import ControlPlane
from flexcore.model.requests import ControlPlaneApi
from flexcore.runtime.interface import Runtime
from flexcore.runtime.plugin import RuntimePlugin
from flexcore.sdk.client import Client

HEAVY = (
    "fastapi",
    "google",
    "grpc",
    "httpx",
    "msgspec",
    "prometheus_client",
    "pydantic",
    "rich",
    "structlog",
    "typer",
    "yaml",
)


def methods(of: type) -> dict[str, inspect.Signature]:
    found = inspect.getmembers(of, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in found if not name.startswith("_")}


def loaded_by(statement: str) -> set[str]:
    program = f"import sys; {statement}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_offers_the_task_decorator_and_its_version() -> None:
    assert sorted(flexcore.__all__) == ["__version__", "task"]


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded_by("import flexcore") & set(HEAVY) == set()


def test_importing_the_command_line_loads_only_its_own_library() -> None:
    assert loaded_by("import flexcore.cli.app") & set(HEAVY) - {"rich", "typer"} == set()


def test_the_control_plane_and_its_client_have_the_same_methods() -> None:
    wanted = methods(ControlPlaneApi)

    assert wanted
    for implementation in (ControlPlane, Client):
        assert {name: methods(implementation)[name] for name in wanted} == wanted


def test_the_facade_has_no_method_that_its_interface_lacks() -> None:
    assert set(methods(ControlPlane)) == set(methods(ControlPlaneApi))


def test_a_runtime_has_four_verbs() -> None:
    assert set(methods(Runtime)) == {"execute", "health", "capabilities", "cleanup"}


def test_the_shipped_runtimes_are_found_by_their_entry_points() -> None:
    found = {each.name: each.load() for each in entry_points(group="flexcore.runtimes")}

    assert {"local", "meltano"} <= set(found)
    assert all(isinstance(plugin, RuntimePlugin) and plugin.kind == name for name, plugin in found.items())
