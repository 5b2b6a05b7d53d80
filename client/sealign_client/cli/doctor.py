"""``sealign doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealign.app.options import with_options
from sealign.errors import InvalidInputError
from sealign_client.cli.common import AsJson, Config, settings_of, single_command
from sealign_client.settings import DAEMON_SETTINGS, ClientSettings

if TYPE_CHECKING:
    from sealign.app.checkup import Checkup
    from sealign_client.blocking import Client
    from sealign_client.results import Description

app = single_command()

_NOWHERE = "localhost:1"
_PROBE = "The committee published its yearly report on the harvest and the price of wheat."
_PACKAGES = ("tenseal", "grpcio", "numpy", "torch", "transformers")


@app.command()
@with_options(ClientSettings, exclude=("model", "recentring", *DAEMON_SETTINGS))
def doctor(given: dict[str, Any], as_json: AsJson = False, config: Config = None) -> None:
    """Check certificates, clock, versions, silo, key, encoder, map, plan and a round trip, and say what to mend.

    Without --silo, what needs none is checked; without --encoder likewise. The round trip asks about one fixed
    sentence and counts as a query. Exit status: 0 if nothing is wrong, 1 otherwise.
    """
    from sealign.app.checkup import Checkup, check_authority, check_certificate, check_clock, check_versions
    from sealign_client.blocking import Client

    settings, has_silo = _settings(config, given)
    checkup = Checkup()
    check_versions(checkup, _PACKAGES)
    if settings.tls_ca is not None:
        check_authority(checkup, "authority", settings.tls_ca)
    if has_silo or settings.tls_cert is not None:
        check_certificate(checkup, "certificate", settings.tls_cert, settings.tls_key)
    _check_files(checkup, settings)
    if not has_silo and settings.encoder is None:
        check_clock(checkup, None)
    else:
        # A client names an encoder, which is not loaded where nothing needs it.
        with Client(settings.model_copy(update={"encoder": settings.encoder or "use"})) as client:
            reached = has_silo and _check_silo(checkup, client)
            can_embed = settings.encoder is not None and _check_encoder(checkup, client)
            offer = checkup.attempt("map", client.describe) if reached and can_embed else None
            check_clock(checkup, None if offer is None or offer.map is None else offer.map.created)
            if offer is not None:
                _check_tasks(checkup, client, offer)
    checkup.report(as_json)


def _settings(config: Path | None, given: dict[str, Any]) -> tuple[ClientSettings, bool]:
    """Return the settings, and whether they name a silo."""
    try:
        return settings_of(config, given), True
    except InvalidInputError as error:
        if "silo is missing" not in str(error):
            raise
        return settings_of(config, {**given, "silo": _NOWHERE}), False


def _check_files(checkup: Checkup, settings: ClientSettings) -> None:
    """Check directories of maps and keys, and what is in them."""
    from sealign.ckks import SecretKey
    from sealign_client.local.directory import maps_directory
    from sealign_client.local.keys import KeyStore
    from sealign_client.local.maps import ClientMaps

    maps = maps_directory(settings.map_directory)
    pins = checkup.attempt("maps", lambda: list(ClientMaps(maps).pins()))
    if pins is not None:
        _check_directory(checkup, "maps", maps, f"{len(pins)} maps are pinned in {maps}")
    if settings.key_directory is None:
        checkup.ok("key", "is made for each run, and stored nowhere")
        return
    secret = settings.key_passphrase
    store = KeyStore(settings.key_directory, secret.get_secret_value() if secret else None, settings.security_table)
    for path in store.paths():
        load = checkup.attempt("key", lambda path=path: SecretKey.load(path, store.passphrase, store.table))  # type: ignore[misc]
        if load is not None:
            checkup.ok("key", f"{path.name} can be opened")
    _check_directory(checkup, "key", settings.key_directory, f"{len(list(store.paths()))} keys are stored")


def _check_directory(checkup: Checkup, subject: str, directory: Path, said: str) -> None:
    place = directory if directory.exists() else next(parent for parent in directory.parents if parent.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        checkup.fail(subject, f"{place} cannot be written", "change its owner or permissions, or choose another")
    elif directory.exists() and directory.stat().st_mode & 0o077:
        checkup.warn(subject, f"others can open {directory}", f"run chmod 700 {directory}")
    else:
        checkup.ok(subject, said)


def _check_silo(checkup: Checkup, client: Client) -> bool:
    from sealign_client.version import __version__

    silo = checkup.attempt("silo", client.silo)
    if silo is None:
        return False
    said = f"{silo.name} answers; it calls you {silo.identity}"
    if silo.version != __version__:
        checkup.warn("silo", f"{said}. It runs Sealign {silo.version}, and you {__version__}", "use the same version")
    else:
        checkup.ok("silo", f"{said}, and runs Sealign {silo.version}")
    if not silo.limits.may_align:
        checkup.warn("silo", "it does not let you align", "ask its operator, if you need a map")
    return True


def _check_encoder(checkup: Checkup, client: Client) -> bool:
    from sealign.encoders import check_encoder

    encoder = checkup.attempt("encoder", lambda: client.encoder)
    if encoder is None:
        return False
    findings = check_encoder(encoder)
    checkup.add("encoder", *findings)
    return all(finding.level != "error" for finding in findings)


def _check_tasks(checkup: Checkup, client: Client, offer: Description) -> None:
    """Check the map, the plan of every task, and one round trip."""
    if offer.map is None:
        sets = ", ".join(f"{card.name} ({card.digest[:12]}…)" for card in offer.space.public_sets) or "none"
        checkup.fail("map", f"there is none. The silo's public sets: {sets}", "run sealign align --public FILE")
        return
    checkup.ok("map", f"{offer.map.id[:12]} explains {offer.map.explained_variance:.2f} of the silo's embeddings")
    if not offer.tasks:
        checkup.fail("plan", "the silo has no classification task", "ask its operator")
    for name in offer.silo.faulty_tasks:
        checkup.fail("plan", f"task {name} can be served to nobody", "ask the silo's operator, whose log says why")
    for task in offer.tasks:
        if task.name in offer.silo.faulty_tasks:
            continue
        if task.preparing:
            checkup.warn("plan", f"the silo is still preparing task {task.name} for this map", "try again in a minute")
            continue
        if not task.plans:
            checkup.fail(
                "plan",
                f"task {task.name} is not served to this map: no parameter set holds its logits",
                "ask the silo's operator, whose log says why",
            )
            continue
        promised = "unknown" if task.mapped_accuracy is None else f"{task.mapped_accuracy:.3f}"
        plans = ", ".join(f"{plan.rows} rows" for plan in task.plans)
        checkup.ok("plan", f"task {task.name}: promised accuracy {promised}, plans for {plans}")
    _check_canaries(checkup, client)
    served = next((task for task in offer.tasks if task.plans), None)
    if served is not None:
        result = checkup.attempt("round trip", lambda: _round_trip(client, served.name))
        if result is not None:
            checkup.ok("round trip", result)


def _check_canaries(checkup: Checkup, client: Client) -> None:
    """Check how the silo has answered canaries, also those of other processes."""
    reports = checkup.attempt("canaries", client.canaries)
    for report in reports or ():
        said = f"task {report.task}: {report.compared} answers compared, {report.wrong} wrong"
        if report.is_alarm:
            reason = f"{said}; the answers have changed under one revision, confidence {report.confidence:.6f}"
            checkup.fail("canaries", reason, "ask the silo's operator; then run sealign canaries forget")
        elif report.wrong:
            checkup.warn("canaries", f"{said}, confidence {report.confidence:.6f}", "ask the silo's operator")
        else:
            share = f"under {report.undetected_share:.1%} wrong answers would go unseen in 1 case of 100"
            checkup.ok("canaries", f"{said}; {share}")


def _round_trip(client: Client, task: str) -> str:
    import warnings
    from time import perf_counter

    rows = client.encoder.encode([_PROBE])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client.logits(rows, task)  # the key travels, once
        began = perf_counter()
        client.logits(rows, task)
    return f"task {task} answers in {1e3 * (perf_counter() - began):.1f} ms, embedding aside"
