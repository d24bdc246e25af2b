"""Over TLS: who has the right authority, token and certificate gets in; everybody else reads why not."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from flexcore_local.plugin import PLUGIN as LOCAL
from flexcore_remote.config import RemoteConfig
from flexcore_remote.runtime import RemoteRuntime

from flexcore.api.remote.server import TlsFiles
from flexcore.model.errors import RuntimeUnavailable
from flexcore.runtime.interface import Health
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import runtime_context
from flexcore.testing.runtime_processes import BashHarness
from flexcore.testing.runtime_remote import TOKEN, served


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for name, where in (("one", "IP:127.0.0.1"), ("other", "IP:127.0.0.1"), ("named", "DNS:box.example")):
        subject = ["-subj", f"/CN={name}", "-addext", f"subjectAltName={where}", "-days", "2"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        openssl(folder, "req", "-x509", *curve, "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem", *subject)
    return folder


async def asked(address: str, folder: Path, **config: Any) -> tuple[Health, str]:
    given = RemoteConfig.model_validate({"address": address, "token": TOKEN, **config})
    runtime = RemoteRuntime("far", given, runtime_context(folder, clock=RealClock()))
    try:
        status = await runtime.health()
        if status.state is Health.DOWN:
            with pytest.raises(RuntimeUnavailable):
                await runtime.capabilities()
        return status.state, status.reason
    finally:
        await runtime.close()


async def test_tls_lets_in_who_trusts_the_authority(certificates: Path, tmp_path: Path) -> None:
    tls = TlsFiles(certificate=certificates / "one.pem", key=certificates / "one.key")
    async with served(BashHarness.of(LOCAL, tmp_path / "inner"), tmp_path / "server", tls=tls) as address:
        right = await asked(address, tmp_path, ca_file=certificates / "one.pem")
        wrong = await asked(address, tmp_path, ca_file=certificates / "other.pem")
        plain = await asked(address, tmp_path)

    assert right[0] is Health.UP
    assert wrong[0] is Health.DOWN and "its certificate is not trusted" in wrong[1]
    assert plain[0] is Health.DOWN


async def test_a_certificate_for_another_name_is_said_and_the_name_can_be_given(
    certificates: Path, tmp_path: Path
) -> None:
    named = certificates / "named.pem"
    tls = TlsFiles(certificate=named, key=certificates / "named.key")
    async with served(BashHarness.of(LOCAL, tmp_path / "inner"), tmp_path / "server", tls=tls) as address:
        plain = await asked(address, tmp_path, ca_file=named)
        given = await asked(address, tmp_path, ca_file=named, server_name="box.example")

    assert plain[0] is Health.DOWN and "its certificate is for another name" in plain[1]
    assert given[0] is Health.UP


async def test_a_server_may_ask_for_a_certificate(certificates: Path, tmp_path: Path) -> None:
    one = certificates / "one.pem"
    tls = TlsFiles(certificate=one, key=certificates / "one.key", client_ca=one)
    async with served(BashHarness.of(LOCAL, tmp_path / "inner"), tmp_path / "server", tls=tls) as address:
        with_one = await asked(address, tmp_path, ca_file=one, cert_file=one, key_file=certificates / "one.key")
        without = await asked(address, tmp_path, ca_file=one)

    assert with_one[0] is Health.UP
    assert without[0] is Health.DOWN


def test_another_machine_is_not_asked_without_tls() -> None:
    with pytest.raises(ValueError, match="requests hold secrets"):
        RemoteConfig.model_validate({"address": "box.example:9191", "token": TOKEN})
