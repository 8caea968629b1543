"""Intents: large uploads in progress, and how far they have got, so that a broken one can go on.

They are hints (see hints.py): whatever is wrong with the database, it is deleted and begun anew,
with a notice. A cycle that needs none makes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from skynet.hints import Bounds, Hints, HintsDamaged
from skynet.monitor import Monitor, Notice
from skynet.remote import Intent
from skynet.remote.verbs import is_temp

MAX_BYTES = 32 * 1024  # of a key or a value
MAX_INTENTS = 1000
MAX_DATABASE = 64 << 20

_INTENT = b"intent "  # what the keys of intents begin with

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Intent).decode


class Intents:
    """The intents of one mirror, in a directory of their own."""

    def __init__(self, directory: Path, monitor: Monitor) -> None:
        self._directory = directory
        self._monitor = monitor
        self._hints = Hints(directory, Bounds(MAX_BYTES, MAX_DATABASE), self._forgotten)
        self._intents: dict[bytes, Intent] | None = None  # as the disk has them, once they are read

    def noted(self) -> Mapping[bytes, Intent]:
        """Path -> how far its upload had got when that was noted last."""
        if self._intents is None:
            self._intents = {}
            if self._hints.exist:
                self._hints.use(self._read)
        return self._intents

    def note(self, intents: Mapping[bytes, Intent]) -> None:
        """Keep these, with those of other paths."""
        known = self.noted()
        news = {
            path: intent
            for path, intent in intents.items()
            if known.get(path) != intent and len(_INTENT + path) <= MAX_BYTES
        }
        if news:
            self._hints.use(lambda cache: self._write(cache, news, ()))

    def forget(self, paths: Iterable[bytes]) -> None:
        """Drop the intents of these paths, if there are any."""
        known = self.noted()
        gone = known.keys() & set(paths) if known else ()
        if gone:
            self._hints.use(lambda cache: self._write(cache, {}, gone))

    def close(self) -> None:
        """Close the database."""
        self._hints.close()

    def _read(self, cache: Any) -> None:
        found: dict[bytes, Intent] = {}
        for key in cache.iterkeys():
            if len(found) == MAX_INTENTS:
                raise HintsDamaged("it holds too much")
            if not key.startswith(_INTENT):
                raise HintsDamaged("it holds a key of no kind")
            found[key.removeprefix(_INTENT)] = _intent(cache.get(key))
        self._intents = found

    def _write(self, cache: Any, news: Mapping[bytes, Intent], gone: Iterable[bytes]) -> None:
        assert self._intents is not None
        with cache.transact():
            for path, intent in news.items():
                cache.set(_INTENT + path, _encode(intent))
            for path in gone:
                cache.delete(_INTENT + path)
        self._intents = {p: i for p, i in self._intents.items() if p not in gone} | dict(news)

    def _forgotten(self, error: Exception) -> None:
        self._intents = {}
        self._monitor(
            Notice(
                "intents-damaged",
                f"The note of uploads in progress in {self._directory} cannot be used "
                f"({error}). It is begun anew; what was under way is sent from its beginning.",
            )
        )


def _intent(value: bytes) -> Intent:
    try:
        intent = _decode(value)
    except msgspec.DecodeError as error:
        raise HintsDamaged(str(error)) from None
    whole = 0 < intent.length <= intent.size and len(intent.digest) == 16
    if not whole or not is_temp(intent.temp):
        raise HintsDamaged("it holds an intent that cannot be")
    return intent
