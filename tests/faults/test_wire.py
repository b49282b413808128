"""The wire between namespaces does what it says, to real connections."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.faults.names import NO_SUCH_NAME, Names
from tests.faults.namespaces import Namespace
from tests.faults.result import NotRun
from tests.faults.wire import Wire

HERE, THERE = "10.99.1.1", "10.99.1.2"
PORT = 8000


class Connected(NamedTuple):
    """A connection over the wire, its two ends in two namespaces."""

    wire: Wire
    here: Namespace
    near: socket.socket
    far: socket.socket


@pytest.fixture
async def connected() -> AsyncIterator[Connected]:
    async with contextlib.AsyncExitStack() as stack:
        try:
            here, there = (
                stack.enter_context(contextlib.closing(Namespace(one))) for one in (HERE, THERE)
            )
        except NotRun as reason:
            pytest.skip(str(reason))
        wire = await stack.enter_async_context(Wire([here, there]))
        listener = stack.enter_context(there.call(socket.create_server, (THERE, PORT)))
        near = stack.enter_context(await here.run(socket.create_connection, (THERE, PORT)))
        far = stack.enter_context((await there.run(listener.accept))[0])
        for end in (near, far):
            end.settimeout(5)
        yield Connected(wire, here, near, far)


async def test_what_is_sent_arrives(connected: Connected) -> None:
    connected.wire.delay, connected.wire.loss = 0.001, 0.2
    content = bytes(range(256)) * 40
    await connected.here.run(connected.near.sendall, content)
    assert await connected.here.run(_all, connected.far, len(content)) == content
    assert connected.wire.counted["late"]


async def test_a_reset_ends_both_ends(connected: Connected) -> None:
    connected.wire.reset(THERE)
    await connected.here.run(connected.near.sendall, b"asked")
    for end in (connected.near, connected.far):
        with pytest.raises(ConnectionResetError):
            await connected.here.run(end.recv, 1)
    assert connected.wire.counted["reset"] == 1


async def test_a_forgotten_connection_says_nothing_and_a_new_one_passes(
    connected: Connected,
) -> None:
    await connected.here.run(connected.near.sendall, b"1")
    assert await connected.here.run(connected.far.recv, 1) == b"1"
    assert connected.wire.forget(THERE) == 1
    connected.far.settimeout(0.1)
    await connected.here.run(connected.near.sendall, b"2")
    with pytest.raises(TimeoutError):
        await connected.here.run(connected.far.recv, 1)
    (await connected.here.run(socket.create_connection, (THERE, PORT), 5)).close()


async def test_nothing_reaches_a_place_that_is_cut_off(connected: Connected) -> None:
    connected.wire.cut(THERE)
    connected.far.settimeout(0.1)
    await connected.here.run(connected.near.sendall, b"1")
    with pytest.raises(TimeoutError):
        await connected.here.run(connected.far.recv, 1)
    connected.wire.mend()
    connected.far.settimeout(5)
    assert await connected.here.run(connected.far.recv, 1) == b"1"


async def test_the_name_service_answers_or_denies(connected: Connected) -> None:
    question = bytes.fromhex("abcd0100000100000000000004") + b"rm-1" + bytes.fromhex("0000010001")
    async with Names(connected.here, {"rm-1": THERE}) as names:
        asking = await connected.here.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.settimeout(5)
            for fault, code, found in ((None, 0, True), (NO_SUCH_NAME, 3, False)):
                names.answer = fault
                asking.sendto(question, ("127.0.0.1", 53))
                answer = await connected.here.run(asking.recv, 512)
                assert answer[3] & 15 == code
                assert answer.endswith(socket.inet_aton(THERE)) is found


def _all(end: socket.socket, count: int) -> bytes:
    content = b""
    while len(content) < count:
        content += end.recv(65536)
    return content
