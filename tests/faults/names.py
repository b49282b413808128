"""A name service with faults: it answers, says nothing, fails, or denies that there is a name."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import Mapping

from tests.faults.namespaces import Namespace

PORT = 53
ADDRESS_RECORD = 1
HEADER = struct.Struct("!6H")
SILENT, SERVER_FAILURE, NO_SUCH_NAME = -1, 2, 3
"""Response codes of RFC 1035, and no answer at all."""


class Names:
    """Serves ``addresses`` by their names at 127.0.0.1 of the namespace, while it is open.

    ``answer`` is the fault that every question meets; None answers.
    """

    FAULTS = (SILENT, SERVER_FAILURE, NO_SUCH_NAME)

    def __init__(self, namespace: Namespace, addresses: Mapping[str, str]) -> None:
        self.answer: int | None = None
        self.counted: Counter[str] = Counter()
        self._addresses = addresses
        self._socket = namespace.call(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", PORT))

    async def __aenter__(self) -> Names:
        asyncio.get_running_loop().add_reader(self._socket, self._read)
        return self

    async def __aexit__(self, *exception: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        question, asker = self._socket.recvfrom(4096)
        if self.answer is not None:
            self.counted["names not resolved"] += 1
        if self.answer != SILENT:
            self._socket.sendto(self._answered(question), asker)

    def _answered(self, question: bytes) -> bytes:
        number = HEADER.unpack_from(question)[0]
        end = question.index(b"\0", HEADER.size) + 5
        asked = question[HEADER.size : end]
        name, kind = _name(asked), struct.unpack_from("!H", asked, len(asked) - 4)[0]
        code = NO_SUCH_NAME if name not in self._addresses else self.answer or 0
        found = b""
        if not code and kind == ADDRESS_RECORD:
            address = socket.inet_aton(self._addresses[name])
            found = struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(address)) + address
        return HEADER.pack(number, 0x8180 | code, 1, int(bool(found)), 0, 0) + asked + found


def _name(asked: bytes) -> str:
    labels, place = [], 0
    while length := asked[place]:
        labels.append(asked[place + 1 : place + 1 + length].decode().lower())
        place += 1 + length
    return ".".join(labels)
