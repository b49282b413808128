"""The wire between namespaces: every packet passes here, late, never, or answered with a reset."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import struct
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from tests.faults.known import SEED
from tests.faults.namespaces import Namespace

LONGEST_PACKET = 65_536
TCP, FIN, RST, ACK = 6, 0x01, 0x04, 0x10


@dataclass(frozen=True)
class Segment:
    """What a reset needs to know of a TCP segment."""

    source: bytes
    target: bytes
    source_port: int
    target_port: int
    sequence: int
    acknowledged: int
    flags: int
    payload: int

    @property
    def flow(self) -> frozenset[tuple[bytes, int]]:
        """Its connection, in both directions."""
        return frozenset({(self.source, self.source_port), (self.target, self.target_port)})


class Wire:
    """Carries the packets of its namespaces while ``async with`` is open.

    ``delay`` is in seconds, with as much again at random; ``loss`` is the share of packets that
    never arrive; ``counted`` says how many packets met which fault.
    """

    def __init__(self, namespaces: Sequence[Namespace]) -> None:
        self.delay = 0.0
        self.loss = 0.0
        self.counted: Counter[str] = Counter()
        self._ends = {socket.inet_aton(one.address): one.packets for one in namespaces}
        self._cut: set[bytes] = set()
        self._resetting: set[bytes] = set()
        self._flows: set[frozenset[tuple[bytes, int]]] = set()
        self._forgotten: set[frozenset[tuple[bytes, int]]] = set()
        self._random = random.Random(SEED)

    async def __aenter__(self) -> Wire:
        self._loop = asyncio.get_running_loop()
        for end in self._ends.values():
            self._loop.add_reader(end, self._read, end)
        return self

    async def __aexit__(self, *exception: object) -> None:
        for end in self._ends.values():
            self._loop.remove_reader(end)
        self._ends = {}

    def cut(self, address: str) -> None:
        """Nothing comes from there and nothing arrives there, until ``mend``."""
        self._cut.add(socket.inet_aton(address))

    def mend(self) -> None:
        """Carry everything again but the connections that are forgotten."""
        self.delay = self.loss = 0.0
        self._cut.clear()
        self._resetting.clear()

    def reset(self, address: str) -> None:
        """Answer what is sent there with resets, until ``mend``."""
        self._resetting.add(socket.inet_aton(address))

    def forget(self, address: str) -> int:
        """Half-open connections: as a firewall that has lost its table, drop whatever belongs to
        the connections that there are, without a word; new ones pass. Returns how many."""
        host = socket.inet_aton(address)
        old = {flow for flow in self._flows if any(host == end for end, _ in flow)}
        self._forgotten |= old
        self._flows -= old
        return len(old)

    def _read(self, end: int) -> None:
        with suppress(BlockingIOError):
            while True:
                self._carry(os.read(end, LONGEST_PACKET))

    def _carry(self, packet: bytes) -> None:
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return  # IPv6 asks for neighbours, and nobody has addresses
        source, target = packet[12:16], packet[16:20]
        segment = _segment(packet)
        if segment is not None and self._met(segment):
            return
        if self._cut & {source, target}:
            self.counted["cut"] += 1
        elif self._random.random() < self.loss:
            self.counted["lost"] += 1
        elif self.delay:
            self.counted["late"] += 1
            late = self.delay * (1 + self._random.random())
            self._loop.call_later(late, self._write, target, packet)
        else:
            self._write(target, packet)

    def _met(self, segment: Segment) -> bool:
        """Whether a segment goes no further, for a fault of its connection."""
        if segment.flow in self._forgotten:
            self.counted["forgotten"] += 1
            return True
        if segment.flags & (FIN | RST):
            self._flows.discard(segment.flow)
        elif segment.payload:
            self._flows.add(segment.flow)
        if not self._resetting & {segment.source, segment.target} or not segment.payload:
            return False
        self.counted["reset"] += 1
        self._write(segment.source, _reset_of(segment, to_sender=True))
        self._write(segment.target, _reset_of(segment, to_sender=False))
        return True

    def _write(self, target: bytes, packet: bytes) -> None:
        end = self._ends.get(target)
        if end is not None:
            with suppress(OSError):  # its queue is full: the packet is lost, as on any wire
                os.write(end, packet)


def _segment(packet: bytes) -> Segment | None:
    start = (packet[0] & 15) * 4
    if packet[9] != TCP or len(packet) < start + 20:
        return None
    ports_and_numbers = struct.unpack_from("!HHIIBB", packet, start)
    source_port, target_port, sequence, acknowledged, offset, flags = ports_and_numbers
    payload = len(packet) - start - (offset >> 4) * 4
    return Segment(packet[12:16], packet[16:20], source_port, target_port, sequence,
                   acknowledged, flags, payload)  # fmt: skip


def _reset_of(segment: Segment, to_sender: bool) -> bytes:
    """The reset that one end of a connection gets, as if the other one had sent it."""
    source, target = segment.source, segment.target
    ports, number = (segment.source_port, segment.target_port), segment.sequence
    if to_sender:
        source, target, ports = target, source, ports[::-1]
        number = segment.acknowledged
    head = struct.pack("!HHIIBBHHH", *ports, number, 0, 5 << 4, RST, 0, 0, 0)
    checked = _checksum(source + target + struct.pack("!HH", TCP, len(head)) + head)
    tcp = head[:16] + struct.pack("!H", checked) + head[18:]
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 0, 0, 64, TCP, 0, source, target)
    return ip[:10] + struct.pack("!H", _checksum(ip)) + ip[12:] + tcp


def _checksum(content: bytes) -> int:
    """Of RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(content) // 2}H", content))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
