"""Settings of a silo: the command line first, then SEALIGN_SILO_… variables, then the silo's silo.toml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from sealign.app.addresses import ListenAddress, TrustedPeer, parse_address
from sealign.app.settings import LayeredSettings, contents_of
from sealign.ckks import DEFAULT_PRECISION, SecurityTable
from sealign.defaults import BATCH_BYTES, BATCH_ROWS, OOD_DIRECTIONS
from sealign.generation import vocabulary as generation

SETTINGS_FILE = "silo.toml"


@dataclass(frozen=True)
class ServingOptions:
    """How heads, maps and alignments are served; nothing about sockets or certificates.

    Attributes:
        precision: largest error of a logit.
        security_table: limits of moduli.
        batch_rows: rows of the batches that plans are made for.
        batch_bytes: of encoded weights for one batch size.
        fit_heads: fit a head to each map where that is better.
        ood_directions: outputs for the Mahalanobis score of fitted heads.
        heads_bytes: of encoded heads to retain, for all identities.
        generation_precision: largest error of a token's logit.
        max_tokens: maximum number of new tokens per generation.
        share_examples: give clients the examples that train --share kept.
        max_releases: cross-covariances for each public set, encoder and identity.
        undelivered_hours: how long a cross-covariance waits for its client.
        alignment_bytes: memory of all alignments under way.
        max_alignments: alignments under way, of different identities.
        alignment_seconds: silence within an alignment, and the whole of a plain one.
        max_maps: maps, and registrations, to retain for each identity and space.
        max_maps_per_day: maps and registrations that one identity may make in 24 hours.
    """

    precision: float = DEFAULT_PRECISION
    security_table: SecurityTable = SecurityTable.CLASSICAL
    batch_rows: tuple[int, ...] = BATCH_ROWS
    batch_bytes: int = BATCH_BYTES
    fit_heads: bool = True
    ood_directions: int = OOD_DIRECTIONS
    heads_bytes: int = 512 << 20
    generation_precision: float = generation.DEFAULT_PRECISION
    max_tokens: int = 1024
    share_examples: bool = False
    max_releases: int = 1
    undelivered_hours: float = 24.0
    alignment_bytes: int = 1024 << 20
    max_alignments: int = 4
    alignment_seconds: float = 300.0
    max_maps: int = 16
    max_maps_per_day: int = 200


@dataclass(frozen=True)
class CallLimits:
    """What the callers of one process may hold or ask for at once.

    Attributes:
        rows_per_request: rows of a request.
        concurrent: products and look-ups under way at once.
        streams: streams that one identity may hold open in one process.
        key_bytes: of public keys, and encryptions of zero under them, to retain for all identities.
        zeros_per_key: encryptions of zero to keep ready for each recent key.
        message_seconds: for a request to come.
        idle_seconds: silence within a stream.
    """

    rows_per_request: int = 1 << 16
    concurrent: int = 64
    streams: int = 32
    key_bytes: int = 64 << 20
    zeros_per_key: int = 4
    message_seconds: float = 30.0
    idle_seconds: float = 300.0


class ServeSettings(LayeredSettings):
    """How a silo serves. Every field is a flag, a variable and a key of silo.toml."""

    prefix: ClassVar[str] = "SEALIGN_SILO_"

    listen: ListenAddress = Field(default="127.0.0.1:7443", description="Address and port.")
    tls_cert: Path = Field(description="Certificate chain, PEM.")
    tls_key: Path = Field(description="Its private key, PEM.")
    tls_client_ca: Path | None = Field(
        default=None, description="Authority that client certificates must come from, PEM."
    )
    tokens: bool = Field(
        default=False, description="Accept bearer tokens, made by `sealign-server identity`, as identities."
    )
    token_listen: ListenAddress | None = Field(
        default=None,
        description="Address and port for callers with a token and no certificate, beside `listen`, which then demands "
        "certificates.",
    )
    trusted_proxies: tuple[TrustedPeer, ...] = Field(
        default=(),
        description="Proxies whose header x-forwarded-client-cert names the caller: dns:NAME or uri:NAME of their "
        "certificate, IP addresses, or CIDR ranges.",
    )
    anonymous: bool = Field(
        default=False,
        description="Serve clients without certificate and token, all as one identity that may query and nothing else.",
    )
    policy: Path | None = Field(
        default=None, description="Tiers, permissions and budgets; by default policy.toml in the silo's directory."
    )
    ledger: str | None = Field(
        default=None,
        description="URL of a PostgreSQL database for the ledger; by default a SQLite file in the silo's directory.",
    )
    workers: int = Field(default=1, ge=1, le=256, description="Worker processes, typically one per core.")
    precision: float = Field(default=DEFAULT_PRECISION, gt=0, lt=1e6, description="Maximum error of a logit.")
    security_table: SecurityTable = Field(
        default=SecurityTable.CLASSICAL, description="Table of the largest moduli to allow."
    )
    batch_rows: tuple[Annotated[int, Field(ge=1, le=1 << 16)], ...] = Field(
        default=BATCH_ROWS, min_length=1, max_length=16, description="Batch sizes, in rows, to make plans for."
    )
    max_batch_weights_mb: int = Field(
        default=BATCH_BYTES >> 20,
        ge=1,
        description="Memory for the encoded weights of one head and batch size, in MiB.",
    )
    max_heads_mb: int = Field(default=512, ge=16, description="Memory for encoded heads in one process, in MiB.")
    max_keys_mb: int = Field(default=64, ge=1, description="Memory for public keys in one process, in MiB.")
    zeros_per_key: int = Field(default=4, ge=0, le=64, description="Encryptions of zero to keep ready per recent key.")
    max_concurrent: int = Field(
        default=64, ge=1, description="Requests under way in one process. More are refused, not queued."
    )
    max_connections: int = Field(
        default=4096, ge=1, le=1 << 20, description="Open connections of one process. More are closed at once."
    )
    max_streams: int = Field(default=32, ge=1, description="Open streams per identity in one process.")
    max_rows: int = Field(default=1 << 16, ge=1, le=1 << 16, description="Rows in one request.")
    max_rows_per_day: int | None = Field(
        default=None,
        ge=1,
        description="Rows per identity and task in 24 hours, if there is no policy. A generated token is one row.",
    )
    max_releases: int = Field(
        default=1, ge=1, description="Cross-covariances for each public set, encoder and identity."
    )
    max_maps: int = Field(
        default=16, ge=1, description="Maps, and registered maps, to retain per identity; the oldest are evicted."
    )
    max_maps_per_day: int = Field(
        default=200, ge=1, description="Maps and registered maps that one identity may make in 24 hours."
    )
    max_alignments: int = Field(default=4, ge=1, description="Alignments under way in one process, one per identity.")
    alignment_seconds: float = Field(
        default=300.0, gt=0, description="Seconds that an alignment waits for its client, and that a plain one takes."
    )
    alignment_memory_mb: int = Field(default=1024, ge=16, description="Memory for alignments in one process, in MiB.")
    undelivered_hours: float = Field(
        default=24.0, gt=0, description="Hours that a cross-covariance waits to be fetched."
    )
    share_examples: bool = Field(
        default=False, description="Give clients the texts that train --share kept, for few-shot alignment."
    )
    fit_heads: bool = Field(default=True, description="Fit a head to each map where that is better on held-out texts.")
    ood_directions: int = Field(
        default=OOD_DIRECTIONS, ge=0, le=256, description="Outputs for the Mahalanobis score of fitted heads."
    )
    generation_precision: float = Field(
        default=generation.DEFAULT_PRECISION, gt=0, lt=1e6, description="Maximum error of a token's logit."
    )
    max_tokens: int = Field(default=1024, ge=1, le=1 << 20, description="Maximum number of new tokens per generation.")
    message_seconds: float = Field(default=30.0, gt=0, description="Seconds for a request to arrive.")
    idle_seconds: float = Field(default=300.0, gt=0, description="Seconds that a stream may be silent.")
    drain_seconds: float = Field(default=10.0, ge=0, description="Seconds for calls to finish after SIGTERM.")
    audit_file_mb: int = Field(
        default=64, ge=1, le=1 << 20, description="Size in MiB beyond which a file of the audit trail is closed."
    )
    metrics_listen: ListenAddress | None = Field(
        default=None, description="Address and port of metrics for Prometheus, over HTTP; without it there are none."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Collector of OpenTelemetry traces, OTLP over gRPC: http://host:port or https://host:port.",
    )
    log_level: str = Field(default="info", description="debug, info, warning or error.")

    @model_validator(mode="after")
    def _says_who_may_call(self) -> ServeSettings:
        if self.allows_anonymous and not self.anonymous and not parse_address(self.listen).is_local:
            raise ValueError(
                f"Anybody could call {self.listen} without a certificate: give --tls-client-ca or --tokens, or "
                "--anonymous if everybody who can connect may query."
            )
        if self.tls_client_ca is not None and self.anonymous:
            raise ValueError("--tls-client-ca demands certificates and --anonymous does without: give one of them.")
        if self.token_listen is not None and not (self.tokens and self.tls_client_ca):
            raise ValueError(
                "--token-listen is for tokens where --listen demands certificates: give --tokens and --tls-client-ca, "
                "or leave it out."
            )
        if self.tls_client_ca is None and any(entry.startswith(("dns:", "uri:")) for entry in self.trusted_proxies):
            raise ValueError(
                "--trusted-proxies names certificates, and nobody shows one without --tls-client-ca: give it, or the "
                "proxies' addresses."
            )
        return self

    @property
    def allows_anonymous(self) -> bool:
        """Whether callers need neither certificate nor token."""
        return self.anonymous or not (self.tls_client_ca or self.tokens or self.trusted_proxies)

    def serving(self) -> ServingOptions:
        """Return what the serving code takes."""
        return ServingOptions(
            precision=self.precision,
            security_table=self.security_table,
            batch_rows=tuple(sorted({rows for rows in self.batch_rows if rows <= self.max_rows} or {self.max_rows})),
            batch_bytes=self.max_batch_weights_mb << 20,
            fit_heads=self.fit_heads,
            ood_directions=self.ood_directions,
            heads_bytes=self.max_heads_mb << 20,
            generation_precision=self.generation_precision,
            max_tokens=self.max_tokens,
            share_examples=self.share_examples,
            max_releases=self.max_releases,
            undelivered_hours=self.undelivered_hours,
            alignment_bytes=self.alignment_memory_mb << 20,
            max_alignments=self.max_alignments,
            alignment_seconds=self.alignment_seconds,
            max_maps=self.max_maps,
            max_maps_per_day=self.max_maps_per_day,
        )

    def calls(self) -> CallLimits:
        """Return what callers may hold or ask for."""
        return CallLimits(
            rows_per_request=self.max_rows,
            concurrent=self.max_concurrent,
            streams=self.max_streams,
            key_bytes=self.max_keys_mb << 20,
            zeros_per_key=self.zeros_per_key,
            message_seconds=self.message_seconds,
            idle_seconds=self.idle_seconds,
        )


def serve_settings(directory: Path, flags: dict[str, Any]) -> ServeSettings:
    """Return the settings for the silo in ``directory``; flags that are None were not given.

    Raises:
        InvalidInputError: a setting is missing, unknown or out of bounds, by name; or the file cannot be read.
    """
    file = directory / SETTINGS_FILE
    return ServeSettings.load(file if file.exists() else None, flags)


def ledger_url(directory: Path) -> str | None:
    """Return the database URL in the silo's silo.toml, which other commands than `serve` need; None without one.

    Raises:
        InvalidInputError: the file cannot be read.
    """
    file = directory / SETTINGS_FILE
    url = contents_of(file).get("ledger") if file.exists() else None
    return None if url is None else str(url)
