"""The valid keys: those of the settings, and those of a file that may change at any time."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import stat
from collections.abc import Iterable

from fivescore.errors import ConfigurationError
from fivescore.settings import KEY, KEY_RULE

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Time between two reads of the file. A change applies once two reads agree on it."""
MOST_KEYS = 1000
"""Limit on the keys of a file. Each request is compared with all of them: 0.2 ms for this many."""
MOST_BYTES = 2**20
"""Limit on the size of a file: twice what ``MOST_KEYS`` of full length take."""


class Keyring:
    """Identifies the key of a request. Holds the SHA-256 digests of the keys, and no key.

    Args:
        keys: keys that stay valid as long as the service runs.
        file: path of a file with one key per line; ``watch`` follows its changes.

    Raises:
        ConfigurationError: the file cannot be read, has no key, or has a line that is not a key.
    """

    def __init__(self, keys: Iterable[str] = (), file: str | None = None) -> None:
        self._fixed = frozenset(_digest(key.encode()) for key in keys)
        self._digests = tuple(self._fixed)
        self._file = file
        if file is None:
            return
        result = _read(file)
        if isinstance(result, str):
            raise ConfigurationError(f"--api-key-file: {result}")
        self._seen: frozenset[bytes] | str = result
        self._taken: frozenset[bytes] | str = result
        self._digests = tuple(self._fixed | result)
        log.info("--api-key-file: %d keys", len(result))

    def __len__(self) -> int:
        return len(self._digests)

    def holder(self, offered: Iterable[bytes]) -> bytes | None:
        """The digest of the valid key among ``offered``, or None; it shows nothing of the key.

        The time that this takes does not depend on any key's length, content or place.
        """
        valid = None
        for value in offered:
            digest = _digest(value)
            for key in self._digests:
                if hmac.compare_digest(digest, key):
                    valid = key
        return valid

    async def watch(self) -> None:
        """Read the file again and again, if there is one, until cancelled."""
        while self._file is not None:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file once more, and accept its keys if it has not changed since the last read.

        Its modification time is not used: not every change or copy updates it. A file without a
        usable key changes nothing, so that a mistake does not lock everybody out.
        """
        assert self._file is not None
        result = _read(self._file)
        settled, self._seen = result == self._seen, result
        if not settled or result == self._taken:
            return
        self._taken = result
        if isinstance(result, str):
            log.error("--api-key-file: %s. THE KEYS READ BEFORE STAY IN FORCE", result)
            return
        before, self._digests = set(self._digests), tuple(self._fixed | result)
        log.info(
            "--api-key-file: %d keys, %d of them new; %d are no longer taken",
            len(result), len(result - before), len(before.difference(self._digests)),
        )  # fmt: skip


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _read(file: str) -> frozenset[bytes] | str:
    """The digests of a file's keys, or an error text without the file's content and its name.

    The name may be a key: that of somebody who took the setting for ``--api-key``.
    """
    try:
        text = _content(file)
        keys = [line.strip() for line in text.decode("utf-8-sig").splitlines()]
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"
    except ValueError as error:  # a null byte in the name, or a text that is not UTF-8
        return f"the file cannot be read: {type(error).__name__}"
    places = [place for place, key in enumerate(keys, 1) if key and not key.startswith("#")]
    for place in places:
        if not KEY.fullmatch(keys[place - 1]):
            return f"line {place}: {KEY_RULE}; one key a line"
    if not 1 <= len(places) <= MOST_KEYS:
        return f"the file has {len(places)} keys; 1 to {MOST_KEYS} can be used"
    return frozenset(_digest(keys[place - 1].encode()) for place in places)


def _content(file: str) -> bytes:
    """Read the file, but no pipe: opening one could wait for ever."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            content = opened.read(MOST_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(content) > MOST_BYTES:
        raise OSError(0, f"it has more than {MOST_BYTES} bytes")
    return content
