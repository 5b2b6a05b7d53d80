"""Settings of a client: arguments first, then SEALIGN_CLIENT_… variables, then a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr, model_validator

from sealign.app.addresses import ListenAddress, PeerAddress
from sealign.app.settings import LayeredSettings
from sealign.errors import InvalidInputError
from sealign.protocol import Placement
from sealign.security import SecurityTable
from sealign_client.endpoint import Endpoint

DAEMON_SETTINGS = ("listen", "http", "http_hosts", "http_origins", "token_file", "log_level")
"""Settings that only the daemon reads."""


class ClientSettings(LayeredSettings):
    """Which silo, which models, which keys."""

    prefix: ClassVar[str] = "SEALIGN_CLIENT_"

    silo: PeerAddress = Field(description="Address and port of the silo.")
    encoder: str | None = Field(
        default=None, min_length=1, description="Local encoder for classification: family:model?options, or a hub name."
    )
    model: str | None = Field(
        default=None, min_length=1, description="Local causal language model for generation: a hub name or path."
    )
    tls_ca: Path | None = Field(
        default=None, description="Authority of the silo's certificate, PEM; without it the system's authorities."
    )
    tls_cert: Path | None = Field(default=None, description="Client certificate, PEM; most silos ask for one.")
    tls_key: Path | None = Field(default=None, description="Private key of the client certificate, PEM.")
    silo_token: SecretStr | None = Field(default=None, description="Token that the silo's operator gave, if it did.")
    silo_token_file: Path | None = Field(
        default=None, description="File that holds this token; read again for each call."
    )
    silo_key: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        description="Signing key of the silo, as its operator shows it; without it the first one is pinned.",
    )
    key_directory: Path | None = Field(
        default=None, description="Store secret keys in this directory; without it they live as long as the client."
    )
    key_passphrase: SecretStr | None = Field(default=None, min_length=1, description="Passphrase of stored keys.")
    map_directory: Path | None = Field(
        default=None, description="Directory of maps and pins; without it a directory in the user's data folder."
    )
    register_maps: bool = Field(
        default=True,
        description="Register maps that this client applies, so that the silo can fit and calibrate heads for them.",
    )
    recentring: Path | None = Field(
        default=None, description="Recentring file that `sealign adapt` made of texts like those to classify."
    )
    placement: Placement | None = Field(
        default=None, description="Where the map is applied; without it at the client if it has a map of its own."
    )
    canaries: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="Share of rows that are added as canaries, whose answers are known; they count against budgets.",
    )
    canary_alarm: Literal["warn", "refuse"] = Field(
        default="warn", description="When canaries show that the silo's answers have changed: warn, or refuse to go on."
    )
    security_table: SecurityTable = Field(
        default=SecurityTable.CLASSICAL, description="Security table that the silo's plans must satisfy."
    )
    timeout: float = Field(
        default=60.0, gt=0, le=86_400, description="Seconds that a request may take, retries included."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Collector of OpenTelemetry traces, OTLP over gRPC: http://host:port or https://host:port.",
    )
    listen: ListenAddress = Field(
        default="127.0.0.1:7450", description="Daemon: address for applications, host:port or unix:/path."
    )
    http: ListenAddress | None = Field(
        default=None, description="Daemon: address for HTTP and the page as well, host:port or unix:/path."
    )
    http_hosts: tuple[str, ...] = Field(
        default=(), description="Daemon: names that a Host header may carry, besides those of the loopback interface."
    )
    http_origins: tuple[str, ...] = Field(
        default=(), description="Daemon: web origins whose pages may call, for example https://app.example."
    )
    token_file: Path | None = Field(
        default=None, description="Daemon: file of the token that applications send; by default in the data folder."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Daemon: level of the log on standard error."
    )

    @property
    def endpoint(self) -> Endpoint:
        """Where the silo is, and how the connection is protected."""
        return Endpoint(
            self.silo,
            self.tls_ca,
            self.tls_cert,
            self.tls_key,
            token=self.silo_token.get_secret_value() if self.silo_token else self.silo_token_file,
            otlp=self.otlp_endpoint,
            table=self.security_table,
        )

    @model_validator(mode="after")
    def _certificate_and_key(self) -> ClientSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together: give both or neither")
        if self.silo_token is not None and self.silo_token_file is not None:
            raise ValueError("silo_token and silo_token_file are two places of one token: give one of them")
        return self


def client_settings(file: Path | None = None, **arguments: Any) -> ClientSettings:
    """Return the settings that arguments (None: not given), the environment and an optional TOML file give.

    Raises:
        InvalidInputError: a setting is missing, unknown or out of bounds, by name; or the file is not TOML.
    """
    if file is not None and not file.is_file():
        raise InvalidInputError(f"There is no settings file {file}. Check the path.")
    return ClientSettings.load(file, arguments)
