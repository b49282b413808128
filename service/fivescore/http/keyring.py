"""The keys in force: those of the settings, and those of a file that may change meanwhile."""

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
"""Between two looks at the file. A change counts once two looks agree on it."""
MOST_KEYS = 1000
"""In a file. Each request is compared with all of them, which takes 0.2 ms at so many."""
MOST_BYTES = 2**20
"""Of a file: twice what so many keys of full length take."""


class Keyring:
    """Tells whose key a request has. It holds the keys' SHA-256 digests, and no key.

    Args:
        keys: do not change.
        file: one key a line; ``watch`` follows its changes.

    Raises:
        ConfigurationError: the file cannot be read, or has a line that is no key, or no key.
    """

    def __init__(self, keys: Iterable[str] = (), file: str | None = None) -> None:
        self._fixed = frozenset(_digest(key.encode()) for key in keys)
        self._digests = tuple(self._fixed)
        self._file = file
        if file is None:
            return
        found = _read(file)
        if isinstance(found, str):
            raise ConfigurationError(f"--api-key-file: {found}")
        self._seen: frozenset[bytes] | str = found
        self._taken: frozenset[bytes] | str = found
        self._digests = tuple(self._fixed | found)
        log.info("--api-key-file: %d keys", len(found))

    def __len__(self) -> int:
        return len(self._digests)

    def holder(self, offered: Iterable[bytes]) -> bytes | None:
        """The digest of a key among ``offered`` that is in force: it names its holder to us alone.

        How long it takes tells nothing of any key, neither its length nor its place.
        """
        found = None
        for value in offered:
            digest = _digest(value)
            for key in self._digests:
                if hmac.compare_digest(digest, key):
                    found = key
        return found

    async def watch(self) -> None:
        """Follow the file, if there is one, until cancelled."""
        while self._file is not None:
            await asyncio.sleep(POLL_SECONDS)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Read the file once more; take its keys when it says the same as a look ago.

        It is read and not asked for its time, which neither says everything nor survives every
        copy. A file without a usable key changes nothing, so that no slip locks everybody out.
        """
        assert self._file is not None
        found = _read(self._file)
        settled, self._seen = found == self._seen, found
        if not settled or found == self._taken:
            return
        self._taken = found
        if isinstance(found, str):
            log.error("--api-key-file: %s. THE KEYS READ BEFORE STAY IN FORCE", found)
            return
        before, self._digests = set(self._digests), tuple(self._fixed | found)
        log.info(
            "--api-key-file: %d keys, %d of them new; %d are no longer taken",
            len(found), len(found - before), len(before.difference(self._digests)),
        )  # fmt: skip


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _read(file: str) -> frozenset[bytes] | str:
    """The digests of a file's keys, or what is wrong with it; never what it says, nor its name.

    Whoever mistakes the setting for ``--api-key`` gives a key as the name.
    """
    try:
        text = _content(file)
        keys = [line.strip() for line in text.decode("utf-8-sig").splitlines()]
    except OSError as error:
        return f"the file cannot be read: {error.strerror}"
    except ValueError as error:  # a name with a null byte, a text that is no UTF-8
        return f"the file cannot be read: {type(error).__name__}"
    places = [place for place, key in enumerate(keys, 1) if key and not key.startswith("#")]
    for place in places:
        if not KEY.fullmatch(keys[place - 1]):
            return f"line {place}: {KEY_RULE}; one key a line"
    if not 1 <= len(places) <= MOST_KEYS:
        return f"the file has {len(places)} keys; 1 to {MOST_KEYS} can be used"
    return frozenset(_digest(keys[place - 1].encode()) for place in places)


def _content(file: str) -> bytes:
    """Without waiting for a pipe that nobody writes to."""
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
