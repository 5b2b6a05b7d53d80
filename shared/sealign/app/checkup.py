"""What a ``doctor`` finds: one line per check, with what to do; or JSON."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import typer

from sealign.app.terminal import visible
from sealign.app.tls import WARNING_DAYS, load_authorities, load_identity
from sealign.encoders import Finding
from sealign.errors import SealignError

_T = TypeVar("_T")

_SIGNS = {"ok": "ok     ", "warning": "warning", "error": "error  "}


class Checkup:
    """Findings, each about a subject. A check that fails is a finding too, and the others go on."""

    def __init__(self) -> None:
        self.findings: list[tuple[str, Finding]] = []
        logging.getLogger("sealign.tls").setLevel(logging.ERROR)  # what it would warn of is a finding here

    def add(self, subject: str, *findings: Finding) -> None:
        """Add findings about a subject."""
        self.findings += [(subject, finding) for finding in findings]

    def ok(self, subject: str, what: str) -> None:
        """Add that something is as it should be."""
        self.add(subject, Finding("ok", what))

    def warn(self, subject: str, what: str, advice: str) -> None:
        """Add that something works and will not, or works less well than it could."""
        self.add(subject, Finding("warning", what, advice))

    def fail(self, subject: str, what: str, advice: str = "") -> None:
        """Add that something does not work."""
        self.add(subject, Finding("error", what, advice))

    def attempt(self, subject: str, check: Callable[[], _T]) -> _T | None:
        """Return what a check returns; None if it raises an error of ours, which becomes a finding with its advice."""
        try:
            return check()
        except SealignError as error:
            self.fail(subject, str(error))
            return None

    def report(self, as_json: bool) -> None:
        """Print the findings, and end the program with status 1 if there is an error among them."""
        if as_json:
            rows = [{"check": subject, **vars(finding)} for subject, finding in self.findings]
            typer.echo(json.dumps(rows, indent=2))
        else:
            width = max((len(subject) for subject, _ in self.findings), default=0)
            for subject, finding in self.findings:
                advice = f" → {finding.advice}" if finding.advice else ""
                typer.echo(f"{_SIGNS[finding.level]}  {subject:{width}}  {visible(finding.what + advice)}")
        if any(finding.level == "error" for _, finding in self.findings):
            raise typer.Exit(1)


def check_versions(checkup: Checkup, packages: Iterable[str]) -> None:
    """Say which versions are at work."""
    found = [f"{package} {_version(package)}" for package in ("sealign", *packages)]
    checkup.ok("versions", ", ".join([f"Python {platform.python_version()}", *found]))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_certificate(checkup: Checkup, subject: str, certificate: Path | None, key: Path | None) -> None:
    """Say whether a certificate and its key can be used, and until when."""
    if certificate is None or key is None:
        checkup.warn(subject, "none is given", "give --tls-cert and --tls-key; most silos ask for a certificate")
        return
    identity = checkup.attempt(subject, lambda: load_identity(certificate, key))
    if identity is None:
        return
    said = f"{certificate} is valid until {identity.expires:%Y-%m-%d}, {identity.days_left():.0f} days from now"
    if identity.days_left() < WARNING_DAYS:
        checkup.warn(subject, said, "renew it")
    elif key.stat().st_mode & 0o077:
        checkup.warn(subject, f"others can read its key {key}", f"run chmod 600 {key}")
    else:
        checkup.ok(subject, said)


def check_authority(checkup: Checkup, subject: str, authority: Path) -> None:
    """Say whether a file of authorities can be used."""
    if checkup.attempt(subject, lambda: load_authorities(authority)) is not None:
        checkup.ok(subject, f"{authority} holds an authority that is valid now")


def check_clock(checkup: Checkup, latest: str | None) -> None:
    """Compare this machine's clock with a moment that is known to be past, as ISO 8601; None if there is none."""
    now = datetime.now(timezone.utc)
    behind = 0.0 if latest is None else (datetime.fromisoformat(latest) - now).total_seconds()
    if behind > 60:
        checkup.fail("clock", f"this machine's clock is at least {behind:.0f} s behind the silo's", "set it by NTP")
    else:
        checkup.ok("clock", f"{now:%Y-%m-%d %H:%M:%S} UTC")
