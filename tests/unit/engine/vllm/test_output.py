"""What the engine's processes write: passed on, held back, and searched for the cause."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from fivescore.engine.vllm.output import MOST_LINES, QUIET_SECONDS, StartupOutput, root_cause

CHILD = "(EngineCore_DP0 pid=123) "
LOG = CHILD + "ERROR 11-23 02:11:00 [core.py:100] "
FAILURE = [
    "Loading weights: 50%",
    LOG + "EngineCore failed to start.",
    LOG + "Traceback (most recent call last):",
    LOG + '  File "core.py", line 90, in run',
    LOG + "ValueError: To serve at least one request with the model's max seq len (4096)",
    CHILD + "Process EngineCore_DP0:",
    CHILD + "Traceback (most recent call last):",
    CHILD + '  File "process.py", line 314, in _bootstrap',
    CHILD + "ValueError: To serve at least one request with the model's max seq len (4096)",
    "Traceback (most recent call last):",
    '  File "utils.py", line 1, in wait',
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s):",
]
CAUSE = "To serve at least one request with the model's max seq len (4096)"


class Terminal:
    """A pipe in the terminal's place."""

    def __init__(self) -> None:
        source, self.descriptor = os.pipe()
        self._open: BinaryIO = os.fdopen(self.descriptor, "wb")
        self._source: BinaryIO = os.fdopen(source, "rb")
        self.output = StartupOutput(self.descriptor)

    def text(self) -> str:
        """All that was written; nothing more can be written then."""
        self._open.close()
        return self._source.read().decode()

    def close(self) -> None:
        self._open.close()
        self._source.close()


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def write(output: StartupOutput, *chunks: bytes) -> None:
    """Let an engine's process write and end; each chunk arrives on its own."""
    source, sink = os.pipe()
    thread = threading.Thread(target=output.relay, args=(source,))
    thread.start()
    for chunk in chunks:
        os.write(sink, chunk)
    os.close(sink)
    thread.join(60)
    assert not thread.is_alive()


def lines(*texts: str) -> bytes:
    return "".join(f"{text}\n" for text in texts).encode()


def test_ordinary_lines_are_passed_on_as_they_are(terminal: Terminal) -> None:
    written = "Loading weights:  10%\rLoading weights: 100%\nINFO done\nno newline at the end"
    write(terminal.output, written.encode())
    assert terminal.output.cause() is None
    assert terminal.text() == written


@pytest.mark.parametrize("size", [7, 10_000])
def test_from_the_first_trouble_on_lines_are_held_and_searched(
    terminal: Terminal, size: int
) -> None:
    text = lines(*FAILURE, "an afterthought")  # in pieces, or whole
    write(terminal.output, *(text[i : i + size] for i in range(0, len(text), size)))
    assert terminal.output.cause() == CAUSE
    assert terminal.text() == FAILURE[0] + "\n"


def test_there_is_no_cause_where_none_was_written(terminal: Terminal) -> None:
    write(terminal.output, lines("ERROR something without an exception"))
    assert terminal.output.cause() is None


def test_a_cause_that_another_process_has_still_to_write_is_waited_for(terminal: Terminal) -> None:
    pointing = ["Traceback (most recent call last):", "EngineDeadError: See stack trace (above)."]
    write(terminal.output, lines(*pointing))
    later = threading.Timer(2 * QUIET_SECONDS, write, (terminal.output, lines(*FAILURE)))
    later.start()
    assert terminal.output.cause(waits=True) == CAUSE
    later.join()


def test_once_the_engine_runs_what_was_held_is_written_and_nothing_is_held_any_more(
    terminal: Terminal,
) -> None:
    write(terminal.output, lines("before", "ERROR harmless after all", "after"))
    terminal.output.release()
    write(terminal.output, lines("ERROR while running", "INFO next"))
    assert terminal.text() == (
        "before\nERROR harmless after all\nafter\nERROR while running\nINFO next\n"
    )


def test_the_lines_held_are_bounded_and_the_last_ones_kept(terminal: Terminal) -> None:
    many = [f"ERROR {n}" for n in range(MOST_LINES + 50)]
    write(terminal.output, lines(*many[:1000]), lines(*many[1000:]))
    terminal.output.release()
    kept = terminal.text().splitlines()
    assert len(kept) <= MOST_LINES
    assert kept[-1000:] == many[-1000:]


def test_bytes_that_are_not_text_do_not_end_the_relay(terminal: Terminal) -> None:
    write(terminal.output, b"\xff\xfe\n", b"Traceback (most recent call last):\nOSError: caf\xe9\n")
    assert terminal.output.cause() == "OSError: caf\ufffd"


RELAYED = """
import subprocess, sys, threading
from fivescore.engine.vllm.output import relayed

child = [sys.executable, "-c", sys.argv[1]]
with relayed() as output:
    print("from the parent", flush=True)
    subprocess.run(child)
    if sys.argv[2] == "release":
        output.release()
for thread in threading.enumerate():
    if thread.name == "engine-output":
        thread.join(60)  # all that could write has ended, so the relay ends
print("after", output.cause() if sys.argv[2] != "release" else "", flush=True)
"""


def relay(child: str, then: str) -> subprocess.CompletedProcess[str]:
    """``relayed`` around a child, in a process of its own: it takes over standard output."""
    return subprocess.run(
        [sys.executable, "-c", RELAYED, child, then],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_while_relayed_both_streams_go_to_standard_error_and_afterwards_as_before() -> None:
    done = relay("import sys; print('out'); print('err', file=sys.stderr)", "release")
    assert done.stdout == "after \n"
    assert sorted(done.stderr.splitlines()) == ["err", "from the parent", "out"]


def test_a_failing_child_leaves_no_traceback() -> None:
    done = relay("raise ValueError('the cause')", "fail")
    assert done.stdout == "after the cause\n"
    assert done.stderr == "from the parent\n"


CHAINED = """\
(Worker pid=9) ERROR 1 0 [x:1] Traceback (most recent call last):
(Worker pid=9) ERROR 1 0 [x:1]   File "a/weights.py", line 7, in read
(Worker pid=9) ERROR 1 0 [x:1] lib.ReadError: the header is broken
(Worker pid=9) ERROR 1 0 [x:1]
(Worker pid=9) ERROR 1 0 [x:1] The above exception was the direct cause of the following exception:
(Worker pid=9) ERROR 1 0 [x:1]
(Worker pid=9) ERROR 1 0 [x:1] Traceback (most recent call last):
(Worker pid=9) ERROR 1 0 [x:1] RuntimeError: could not load the model
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8) Exception: WorkerProc failed. See stack trace (above) for the root cause.
Traceback (most recent call last):
RuntimeError: Engine core failed. See root cause above."""
HANDLED = """\
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8) KeyError: 'flash'
(EngineCore pid=8)
(EngineCore pid=8) During handling of the above exception, another exception occurred:
(EngineCore pid=8)
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8) NotImplementedError: Head size 40 is not supported"""
BARE = """\
(EngineCore pid=8) Traceback (most recent call last):
(EngineCore pid=8)   File "/a/linear.py", line 12, in forward
(EngineCore pid=8)     assert x
(EngineCore pid=8) AssertionError"""
WORD = "Traceback (most recent call last):\nKeyError: 'model.norm'"
QUALIFIED = """\
Traceback (most recent call last):
  File "x.py", line 1, in <module>
torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (CHAINED, "the header is broken"),
        (HANDLED, "Head size 40 is not supported"),
        (BARE, "AssertionError in linear.py line 12"),
        (WORD, "KeyError: 'model.norm'"),
        (QUALIFIED, "CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_the_cause_is_the_root_of_the_first_process_that_failed(text: str, cause: str) -> None:
    assert root_cause(text.splitlines()) == cause


@pytest.mark.parametrize("gone", ["a full disk", "a closed pipe"])
def test_the_relay_goes_on_when_nobody_can_have_its_lines(gone: str) -> None:
    """A pipe holds 64 KiB: a relay that had ended would block the engine."""
    if gone == "a full disk":
        log = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, log = os.pipe()
        os.close(reader)
    output = StartupOutput(log)
    write(output, b"ERROR before\n")
    output.release()
    write(output, *[b"a line of the engine\n" * 1000] * 20)
    os.close(log)
