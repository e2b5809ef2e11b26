"""Turn records into the JSON that Stores keep, and back. Spec and status apart, since they are written apart."""

from __future__ import annotations

import dataclasses
import typing
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from csi_driver.kinds import KINDS
from csi_driver.store.base import LARGEST, StoreUnready, TooLarge

if TYPE_CHECKING:
    from csi_driver.records import Record

R = TypeVar("R", bound="Record")


Row = tuple[bytes, bytes, bytes, int, int, int]
"""A record as a Store keeps it: id, spec, status, version, generation, whether it is marked."""
Rows = list[Row]

MOST_DECODED = 20_000
"""How many records `Decoded` holds, at about 3 KiB each."""


class _Decoders(NamedTuple):
    spec: msgspec.json.Decoder[Any]
    status: msgspec.json.Decoder[Any]


def _decoders(kind: type[Record]) -> _Decoders:
    types = typing.get_type_hints(kind)
    return _Decoders(msgspec.json.Decoder(types["spec"]), msgspec.json.Decoder(types["status"]))


_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODERS = {kind: _decoders(kind) for kind in KINDS.values()}


def key_of(record: Record) -> tuple[str, str]:
    """Return the kind and id of a record."""
    return record.KIND, record.id


def encode(record: Record) -> tuple[bytes, bytes]:
    """Return spec and status as JSON. Raises TooLarge when they are more than a Store takes."""
    spec, status = _ENCODER.encode(record.spec), _ENCODER.encode(record.status)
    size = len(spec) + len(status)
    if size > LARGEST:
        raise TooLarge(f"{record.KIND} {record.id} is {size} bytes, the most that a Store takes is {LARGEST}")
    return spec, status


def decode(kind: type[R], rows: Rows) -> list[R]:
    """Return the records in rows. Raises StoreUnready when one makes no sense, naming it."""
    spec_of, status_of = (decoder.decode for decoder in _DECODERS[kind])
    found = []
    raw_id = b""
    try:
        for raw_id, spec, status, version, generation, deleting in rows:
            found.append(
                kind(raw_id.decode(), spec_of(spec), status_of(status), str(version), generation, deleting != 0)
            )
    except ValueError as error:  # msgspec's errors are ValueErrors, as is UnicodeDecodeError
        name = raw_id.decode(errors="replace")
        raise StoreUnready(
            f"can't read {kind.KIND} {name} from the Store: {error}; remove it there and run `sluice adopt`"
        ) from error
    return found


def copy(record: R) -> R:
    """Return an equal record that shares nothing with this one. Raises TooLarge."""
    spec, status = encode(record)
    row = (record.id.encode(), spec, status, 0, record.generation, int(record.deleting))
    return dataclasses.replace(decode(type(record), [row])[0], version=record.version)


class Decoded:
    """Remember decoded records, since decoding is nine tenths of a long list. A version names one content for ever."""

    def __init__(self) -> None:
        """Begin with none."""
        self._known: dict[tuple[type[Record], bytes], tuple[int, Record]] = {}

    def decode(self, kind: type[R], rows: Rows) -> list[R]:
        """Return the records in rows, decoding only what is new. Raises StoreUnready as `decode` does."""
        known = self._known
        found: list[Any] = []
        for row in rows:
            version, record = known.get((kind, row[0]), _NOTHING)
            if version != row[3]:
                record = decode(kind, [row])[0]
                self.learn(row[0], row[3], record)
            found.append(record)
        return found

    def remembered(self, record: R) -> R | None:
        """Return what is kept under this record's version, None when it isn't remembered."""
        _, found = self._known.get((type(record), record.id.encode()), _NOTHING)
        return found if isinstance(found, type(record)) and found.version == record.version else None

    def learn(self, raw_id: bytes, version: int, record: Record) -> None:
        """Remember a record that is surely kept under this version."""
        if len(self._known) >= MOST_DECODED:
            self._known.clear()
        self._known[type(record), raw_id] = (version, record)


_NOTHING: tuple[int, Any] = (-1, None)
