"""Keys from the settings and from a file that changes."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError
from fivescore.http import keyring
from fivescore.http.keyring import MOST_BYTES, MOST_KEYS, Keyring

GOOD = "# of the trainers\nfirst-s3cret\n\n  second-s3cret\t\n#third-s3cret\n"


def takes(ring: Keyring, *keys: str) -> list[bool]:
    return [ring.holder([key.encode()]) is not None for key in keys]


def settle(ring: Keyring) -> None:
    """Look as often as a change needs."""
    ring.look()
    ring.look()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(GOOD)
    return path


@pytest.mark.parametrize(
    "content",
    [GOOD, GOOD.replace("\n", "\r\n"), "\ufeff" + GOOD.removeprefix("# of the trainers\n"),
     "first-s3cret\nsecond-s3cret", "second-s3cret\nfirst-s3cret\nfirst-s3cret\n"],
)  # fmt: skip
def test_a_file_has_a_key_a_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content.encode())
    ring = Keyring((), str(path))
    assert len(ring) == 2
    assert takes(ring, "first-s3cret", "second-s3cret") == [True, True]
    assert takes(ring, "third-s3cret", "#third-s3cret", "", "# of the trainers") == [False] * 4


def test_keys_of_the_settings_and_of_the_file_are_taken_together(file: Path) -> None:
    ring = Keyring(["own-s3cret", "first-s3cret"], str(file))
    assert takes(ring, "own-s3cret", "first-s3cret", "second-s3cret") == [True] * 3
    file.write_text("new-s3cret\n")
    settle(ring)
    assert takes(ring, "own-s3cret", "first-s3cret", "new-s3cret") == [True] * 3
    assert takes(ring, "second-s3cret") == [False]


UNUSABLE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "0 keys"),
    "only comments": (b"# s3cret\n\n  \n", "0 keys"),
    "two on a line": (b"a\nname s3cret\n", "line 2: "),
    "commas": (b"s3cret,s3cret\n", "line 1: "),
    "not ASCII": ("s3cret-ü\n".encode(), "line 1: "),
    "not UTF-8": (b"s3cret\xff\n", "cannot be read"),
    "binary": (b"s3cret\x00\n", "line 1: "),
    "too long a key": (b"s3cret" * 100, "line 1: "),
    "too many": (b"".join(b"s3cret%d\n" % n for n in range(MOST_KEYS + 1)), f"1 to {MOST_KEYS}"),
    "too large": (b"s3cret\n" + b"#" * MOST_BYTES, f"more than {MOST_BYTES} bytes"),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_a_file_that_is_wrong_at_the_start_is_an_error_without_what_it_says(
    tmp_path: Path, fault: str
) -> None:
    content, said = UNUSABLE[fault]
    path = tmp_path / "s3cret"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^--api-key-file: .*{said}") as caught:
        Keyring((), str(path))
    assert "s3cret" not in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "null byte", "not permitted"])
def test_a_file_that_cannot_be_read_is_an_error_without_its_name(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "s3cret")
    if kind == "folder":
        os.mkdir(path)
    elif kind == "pipe":  # nobody writes to it: to open it would wait without end
        os.mkfifo(path)
    elif kind == "null byte":
        path += "\0"
    elif kind == "not permitted":
        if os.geteuid() == 0:
            pytest.skip("everything is permitted to root")
        Path(path).write_text("key\n")
        os.chmod(path, 0)
    with pytest.raises(ConfigurationError, match=r"^--api-key-file: the file cannot") as caught:
        Keyring((), path)
    assert "s3cret" not in caught.value.detail


def test_most_keys_and_the_longest_fit_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    names = [f"{n:04d}" + "x" * 508 for n in range(MOST_KEYS)]
    path.write_text("\n".join(names))
    ring = Keyring((), str(path))
    assert takes(ring, names[0], names[-1]) == [True, True]


def test_a_change_counts_once_two_looks_agree(file: Path) -> None:
    """A file that is written while it is looked at has half its keys, or half a key."""
    ring = Keyring((), str(file))
    file.write_text("first-s3c")
    ring.look()
    assert takes(ring, "first-s3cret", "second-s3cret", "first-s3c") == [True, True, False]
    file.write_text("first-s3cret\nnew-s3cret\n")
    ring.look()
    assert takes(ring, "second-s3cret", "new-s3cret") == [True, False]
    ring.look()
    assert takes(ring, "first-s3cret", "second-s3cret", "new-s3cret") == [True, False, True]


def test_a_change_is_seen_whatever_the_files_time_and_size_say(file: Path) -> None:
    ring = Keyring((), str(file))
    before = file.stat()
    file.write_text(GOOD.replace("first", "third"))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_size) == (
        before.st_mtime_ns, before.st_ino, before.st_size,
    )  # fmt: skip
    settle(ring)
    assert takes(ring, "first-s3cret", "third-s3cret") == [False, True]


def test_a_kubernetes_secret_is_followed_through_its_links(tmp_path: Path) -> None:
    for version, key in (("..1", "first-s3cret"), ("..2", "second-s3cret")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "keys").write_text(key)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "keys").symlink_to("..data/keys")
    ring = Keyring((), str(tmp_path / "keys"))
    (tmp_path / "..data_tmp").symlink_to("..2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    settle(ring)
    assert takes(ring, "first-s3cret", "second-s3cret") == [False, True]


@pytest.mark.parametrize("fault", [*UNUSABLE, "missing"])
def test_the_last_good_keys_stay_when_a_later_file_is_wrong_and_the_log_says_so_once(
    file: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    ring = Keyring((), str(file))
    file.unlink()
    if fault in UNUSABLE:
        file.write_bytes(UNUSABLE[fault][0])
    with caplog.at_level(logging.DEBUG, "fivescore"):
        for _ in range(5):
            ring.look()
    assert takes(ring, "first-s3cret", "second-s3cret") == [True, True]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "STAY IN FORCE" in record.getMessage()
    assert "s3cret" not in caplog.text
    file.write_text(GOOD)
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "fivescore"):
        for _ in range(5):
            ring.look()
    assert [record.levelname for record in caplog.records] == ["INFO"]  # it is mended


def test_the_log_counts_keys_and_shows_none(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "fivescore"):
        ring = Keyring(["own-s3cret"], str(file))
        settle(ring)
        file.write_text("second-s3cret\nnew-s3cret\nnewer-s3cret\n")
        settle(ring)
    assert [record.getMessage() for record in caplog.records] == [
        "--api-key-file: 2 keys",
        "--api-key-file: 3 keys, 2 of them new; 1 are no longer taken",
    ]


def test_no_key_is_kept(file: Path) -> None:
    """What holds no key shows none, in a traceback with locals or anywhere else."""
    ring = Keyring(["own-s3cret"], str(file))
    settle(ring)
    assert "s3cret" not in repr(vars(ring)).replace(str(file), "")


async def test_the_watch_looks_again_and_again_until_cancelled(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "POLL_SECONDS", 0.001)
    ring = Keyring((), str(file))
    watching = asyncio.create_task(ring.watch())
    async with asyncio.timeout(60):
        for number in range(3):
            await asyncio.to_thread(file.write_text, f"key{number}\n")
            while takes(ring, f"key{number}") != [True]:  # noqa: ASYNC110  # there is no event
                await asyncio.sleep(0.001)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_without_a_file_there_is_nothing_to_watch() -> None:
    await asyncio.wait_for(Keyring(["key"]).watch(), 60)


@pytest.mark.parametrize("offered", [b"first", b"last", b"none", b"", b"x" * 100_000])
def test_a_key_is_compared_with_all_keys_as_digests_of_one_length(
    offered: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[int, int]] = []
    compare: Any = keyring.hmac.compare_digest  # type: ignore[attr-defined]

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return bool(compare(one, other))

    monkeypatch.setattr(keyring.hmac, "compare_digest", spy)  # type: ignore[attr-defined]
    found = Keyring(["first", "a-second-that-is-longer", "last"]).holder([offered])
    assert (found is not None) == (offered in (b"first", b"last"))
    assert compared == [(32, 32)] * 3


def test_a_holder_is_the_same_however_often_it_is_asked_and_no_others() -> None:
    ring, again = Keyring(["one", "two"]), Keyring(["two"])
    assert ring.holder([b"two"]) == ring.holder([b"bad", b"two"]) == again.holder([b"two"])
    assert ring.holder([b"one"]) != ring.holder([b"two"])
    assert b"two" not in (ring.holder([b"two"]) or b"")
