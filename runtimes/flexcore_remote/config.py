"""What can be said about an instance of the remote runtime: where its servers are, and how to get in."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, model_validator

from flexcore.runtime.portable.parameters import Seconds
from flexcore_remote.addresses import is_this_machine, target_of

PRINTABLE = "printable ASCII, on one line"


class AnyParameters(BaseModel):
    """The `with` of a step whose keys only the server knows: it refuses what is wrong before anything is started."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, JsonValue]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerAddress(_Strict):
    """One of several servers."""

    address: str
    tags: frozenset[str] = Field(frozenset(), description="What only this one has, beside what it says itself.")


class RemoteConfig(_Strict):
    """One name for one server, or for several that do the same."""

    address: str | None = Field(None, description="HOST:PORT of `flexcore runtime serve`.")
    addresses: list[str | ServerAddress] = Field([], description="The same, of several servers.")
    token: SecretStr | None = Field(None, description="The token that the servers want.")
    token_file: Path | None = Field(None, description="A file that holds it.")
    tls: bool = Field(False, description="Use TLS with the authorities that this machine trusts.")
    ca_file: Path | None = Field(None, description="PEM file of the authority that signed the servers' certificates.")
    cert_file: Path | None = Field(None, description="PEM file of our own certificate, where servers ask for one.")
    key_file: Path | None = Field(None, description="Its key.")
    server_name: str | None = Field(None, description="The name in the certificate, where it is not the address.")
    connect_timeout: Seconds = Field(5.0, description="Longest wait for a connection.")
    answer_timeout: Seconds = Field(4.0, description="Longest wait for health and capabilities.")
    keepalive: Seconds = Field(10.0, description="After so long without a word, a server is asked for a sign of life.")
    keepalive_timeout: Seconds = Field(5.0, description="Longest wait for the sign.")
    reconnects: int = Field(3, ge=0, description="Times in a row that a lost stream is taken up again at once.")
    max_file_bytes: int = Field(64 << 20, ge=1, le=100 << 20, description="Largest file of a workflow that is brought.")

    @property
    def is_encrypted(self) -> bool:
        """Say whether connections use TLS."""
        return self.tls or self.ca_file is not None or self.cert_file is not None

    @property
    def servers(self) -> tuple[ServerAddress, ...]:
        """All servers, in the order of the settings."""
        listed = [*self.addresses, *([self.address] if self.address else [])]
        return tuple(
            ServerAddress(address=each, tags=frozenset()) if isinstance(each, str) else each for each in listed
        )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.address is None) == (not self.addresses):
            raise ValueError("give exactly one of `address` and `addresses`")
        if (self.token is None) == (self.token_file is None):
            raise ValueError("give exactly one of `token` and `token_file`")
        if self.token is not None and not is_token(self.token.get_secret_value()):
            raise ValueError(f"`token` has to be {PRINTABLE}")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("give both `cert_file` and `key_file`, or neither")
        targets = [target_of(each.address) for each in self.servers]
        if len(set(targets)) != len(targets):
            raise ValueError("an address is given twice")
        far = [each for each in targets if not is_this_machine(each)]
        if far and not self.is_encrypted:
            raise ValueError(f"{far[0]} is another machine, and requests hold secrets: set `ca_file`, or `tls: true`")
        return self


def is_token(text: str) -> bool:
    """Say whether a text can be sent as a token."""
    return bool(text) and text.isascii() and text.isprintable()
