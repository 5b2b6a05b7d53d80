"""An embedding space that clients align with: its card, its maps, and what rows of a kind are to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from sealign.alignment import AffineMap, MapCovariances, MappedChannel, mapped_row_norm
from sealign.encoders import EncoderCard
from sealign.errors import InvalidInputError, NoMapError, UnknownMapError
from sealign.protocol import EMBEDDINGS, ClientMap, PublicSetCard, RowKind, SpaceCard
from sealign_server.ledger import MAP, REGISTRATION, Ledger, Makings, Release, Releases
from sealign_server.settings import ServingOptions
from sealign_server.store import OPERATOR, FittedHeads, MapRecord, PublicRows, SharedExamples, SpaceStore

EVERYBODY = ""
"""Owner of what depends on no identity."""
MAX_JOINED = 64
"""Public sets that shared examples have made, in one space."""


@dataclass(frozen=True, eq=False)
class MappedRows:
    """What rows of a kind are to the silo, in its own space: y = x·weight + intercept.

    Attributes:
        owner: identity whose map it is; EVERYBODY where clients apply maps that nobody registered.
        key: names what the head depends on.
        weight: (s, d); None where the client has applied it.
        intercept: (d,), of the map; where the client has applied it, the mean on which its rows are centred.
        row_norm: largest norm of a row.
        channel: from the silo's embeddings to mapped ones; None where nothing is known of the map.
        seen: some public rows as heads get them, (n, d); None where they are not known.
        fitted: heads that were fitted to the map; None where none are.
    """

    owner: str
    key: bytes
    weight: NDArray[np.float64] | None
    intercept: NDArray[np.float64]
    row_norm: float
    channel: MappedChannel | None
    seen: NDArray[np.floating] | None
    fitted: FittedHeads | None = None


class Space:
    """One space, for all identities.

    Args:
        name: "embeddings" or "generation/TASK".
        store: its files.
        ledger: counts releases and maps.
        options: limits.
    """

    def __init__(self, name: str, store: SpaceStore, ledger: Ledger, options: ServingOptions) -> None:
        self.name = name
        self.store = store
        self.options = options
        self.releases = Releases(ledger, options.max_releases)
        self._makings = Makings(ledger, options.max_maps_per_day)
        self.holds_states = name != EMBEDDINGS
        """Whether rows are token states: of any norm, and kept so that maps of them can be refined."""

    def card(self, identity: str, encoder: str | None, dimension: int) -> SpaceCard:
        """Return what an identity may know of the space: its maps, of an encoder or of all; of one, releases left."""
        public_sets = tuple(self.store.public_sets())
        if encoder is not None:
            asked = Release(self.name, "", encoder, identity, 0, dimension)
            public_sets = self.releases.counted(public_sets, asked)
        records = self.store.map_records(encoder, identity)
        records += [r for r in self.store.map_records(encoder, OPERATOR) if identity != OPERATOR]
        return SpaceCard(self.name, self.store.encoder, public_sets, tuple(record.card for record in records))

    def owners(self, identity: str, rows: RowKind) -> tuple[str, ...]:
        """Return whose the map may be behind rows of a kind that an identity sends; nothing is read."""
        if isinstance(rows.map, ClientMap):
            return (EVERYBODY,) if rows.map.registration is None else (identity,)
        return (identity, OPERATOR)

    def is_held(self, owner: str, rows: RowKind) -> bool:
        """Return whether the space still holds the map, or what was registered, or the public set."""
        if isinstance(rows.map, str):
            return self.store.has_map(owner, rows.map)
        if not self.store.has_public_set(rows.map.public_set):
            return False
        return rows.map.registration is None or self.store.has_registration(owner, rows.map.registration)

    def mapped(self, identity: str, rows: RowKind) -> MappedRows:
        """Return what rows of a kind are that an identity sends.

        Raises:
            NoMapError: the identity may use no such map.
            UnknownMapError: what it registered is not held.
            NotFoundError: the space does not hold the public set that the client's map was learned over.
            StorageError: a file is damaged.
        """
        if isinstance(rows.map, ClientMap):
            return self._applied_there(identity, rows.map)
        for owner in self.owners(identity, rows):
            if self.store.has_map(owner, rows.map):
                record = self.store.map_record(owner, rows.map)
                if record.card.encoder != rows.encoder:
                    raise NoMapError(f"map {rows.map} was learned for another encoder than {rows.encoder[:12]}…")
                return self._applied_here(record)
        raise self.no_map(rows)

    def no_map(self, rows: RowKind) -> NoMapError:
        """Return the error of a caller that may use no such map."""
        sets = ", ".join(f"{s.name} ({s.digest[:12]}…)" for s in self.store.public_sets()) or "none"
        generation = f" --generation {self.name.partition('/')[2]}" if self.holds_states else ""
        return NoMapError(
            f"this client has no such map for encoder {rows.encoder[:12]}…; align first (sealign align{generation} "
            f"--public FILE) over a public set that the silo holds: {sets}"
        )

    def public(self, public_set: str, rows: int) -> PublicRows:
        """Return the silo's rows of the public set that a client wants to align over.

        Raises:
            NotFoundError: the space does not hold it.
            InvalidInputError: the client has another number of rows.
        """
        card = self.store.public_set(public_set)
        if rows != card.rows:
            raise InvalidInputError(f"the public set has {card.rows} rows, the client announces {rows}")
        return self.store.load_public_set(public_set)

    def release(self, identity: str, encoder: EncoderCard, public_set: str, rows: int, check_rows: int) -> Release:
        """Return what an encrypted alignment would count as.

        Raises:
            NotFoundError: the space does not hold that public set.
        """
        base = self.store.public_set(public_set).base
        dimension = encoder.dimension + check_rows
        return Release(self.name, public_set, encoder.fingerprint, identity, rows, dimension, base)

    def count_map(self, identity: str, encoder: str) -> None:
        """Count a map before it is learned.

        Raises:
            BudgetExhaustedError: the identity has made all that it may in 24 hours.
        """
        self._makings.record(MAP, self.name, encoder, identity)

    def save_map(
        self, identity: str, learned: AffineMap, row_norm: float, rows: NDArray[np.float16] | None = None
    ) -> MapRecord:
        """Keep a map for an identity, whose oldest beyond the limit are evicted.

        Raises:
            StorageError: it could not be written; earlier maps stay.
        """
        record = self.store.save_map(identity, learned, row_norm, rows)
        if identity != OPERATOR:
            self.store.evict_maps(identity, self.options.max_maps)
        return record

    def register(self, identity: str, encoder: str, public_set: str, covariances: MapCovariances) -> str:
        """Keep what an identity registers about a map that it applies; the answer names the content.

        Raises:
            NotFoundError: the space does not hold the public set that the map was learned over.
            InvalidInputError: they do not fit the silo's rows of it.
            BudgetExhaustedError: the identity has registered all that it may in 24 hours.
            StorageError: they could not be written.
        """
        digest = sha256(b"sealign registration v1\0" + self.name.encode() + b"\0" + public_set.encode() + b"\0")
        for matrix in (covariances.cross, covariances.mapped):
            digest.update(matrix.astype("<f4").tobytes())
        name = digest.hexdigest()[:32]
        if not self.store.has_registration(identity, name):
            self._makings.record(REGISTRATION, self.name, encoder, identity)
            public = self.store.load_public_set(public_set)
            try:
                channel = MappedChannel.of_covariances(public.rows, covariances)
            except np.linalg.LinAlgError as error:
                raise InvalidInputError(
                    "the covariances hold numbers that are too large; they are of no map"
                ) from error
            self.store.save_registration(identity, name, channel, self.options.max_maps)
        return name

    def join(self, public_set: str, examples: SharedExamples, task: str) -> None:
        """Keep the public set that shared examples make of another one, where that is new.

        Raises:
            NotFoundError: the space does not hold that set.
            InvalidInputError: there are too many joined sets already.
            StorageError: its texts were not kept, or the joined set could not be written.
        """
        texts = self.store.load_public_texts(public_set)
        joined = texts.joined(examples.texts)
        cards = self.store.public_sets()
        if joined.digest in {card.digest for card in cards}:
            return
        if sum(card.base is not None for card in cards) >= MAX_JOINED:
            raise InvalidInputError(
                f"{MAX_JOINED} public sets with shared examples are held already; ask the silo's operator to "
                "remove some"
            )
        public = self.store.load_public_set(public_set)
        known = frozenset(texts.texts)
        new = [row for row, text in enumerate(examples.texts) if text not in known]
        card = PublicSetCard(joined.digest, len(joined), f"{public.card.name} + {task}", public.card.base or public_set)
        self.store.save_public_set(PublicRows(card, np.concatenate([public.rows, examples.embeddings[new]])), joined)

    def _applied_here(self, record: MapRecord) -> MappedRows:
        learned = self.store.load_map(record.identity, record.card.id)
        rows = self.store.map_rows(record.identity, learned, verify=False)  # a sample is enough here
        seen = None if rows is None else learned.apply(_sample(rows))
        key = _digest(b"silo's map\0" + learned.id.encode(), learned.channel)
        return MappedRows(
            record.identity,
            key,
            learned.weight,
            learned.intercept,
            record.row_norm,
            learned.channel,
            seen,
            None if learned.channel is None else self.store.fitted_to_map(record.identity, record.card.id),
        )

    def _applied_there(self, identity: str, applied: ClientMap) -> MappedRows:
        """Rows that a client has mapped and centred; the mean that they lack stays here, as part of a head's bias."""
        channel, owner, fitted = None, EVERYBODY, None
        if applied.registration is not None:
            owner = identity
            channel = self.store.load_registration(identity, applied.registration)
            if channel is None:
                raise UnknownMapError("the silo does not hold what was registered about this map; register it again")
            fitted = self.store.fitted_to_registration(identity, applied.registration)
        public: NDArray[np.floating] = self.store.load_public_set(applied.public_set).rows
        key = _digest(b"client's map\0" + applied.public_set.encode(), channel)
        mean = public.mean(axis=0, dtype=np.float64)
        return MappedRows(owner, key, None, mean, mapped_row_norm(public), channel, _sample(public), fitted)


def keyed(rows: RowKind) -> RowKind:
    """Return what a head depends on: of rows that clients have mapped, not on the encoder."""
    return replace(rows, encoder="") if isinstance(rows.map, ClientMap) else rows


def _sample(rows: NDArray[np.floating], most: int = 512) -> NDArray[np.floating]:
    """Return some rows, spread evenly."""
    return rows[:: -(-len(rows) // most)]


def _digest(named: bytes, channel: MappedChannel | None) -> bytes:
    state = sha256(named)
    if channel is not None:
        for part in channel.ARRAYS:
            state.update(np.ascontiguousarray(getattr(channel, part), dtype="<f4").data)
    return state.digest()
