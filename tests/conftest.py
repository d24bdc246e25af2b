"""What every test gets: an environment that says nothing about FlexCore, and properties that can be repeated."""

import os
import random
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# No deadline: a busy machine is no finding. The blob and the seed repeat a failure that only another machine saw.
settings.register_profile("flexcore", print_blob=True, derandomize=False, deadline=None)
settings.load_profile("flexcore")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(2**32))


def pytest_report_header(config: pytest.Config) -> str:
    return f"repeat the properties with --hypothesis-seed={config.getoption('hypothesis_seed')}"


@pytest.fixture(scope="session", autouse=True)
def _bytecode_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where no bytecode may be written into the checkout, hundreds of commands would compile all of it each time."""
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTHONDONTWRITEBYTECODE")
        patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("FLEXCORE_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _messages_to_stdout() -> Iterator[None]:
    """A command that ran in this process sends FlexCore's messages to the stderr of its time, closed by now."""
    yield
    structlog.reset_defaults()
