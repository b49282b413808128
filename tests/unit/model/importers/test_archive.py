"""Files are read where they lie, and an archive cannot reach out of itself."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from fivescore.errors import ConfigurationError
from fivescore.model.importers.archive import open_files


def pack(path: Path, *entries: tuple[str, bytes], mode: str = "w:") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def link(path: Path, kind: bytes) -> Path:
    with tarfile.open(path, "w:") as archive:
        entry = tarfile.TarInfo("model_config.yaml")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    return path


def test_an_archive_s_member_is_read_in_place(tmp_path: Path) -> None:
    packed = pack(tmp_path / "a.nemo", ("./a", b"other"), ("./folder/b", bytes(range(200))))
    member = open_files(packed).below("folder")["b"]
    assert member.path == packed
    with member.open(10, 20) as stream:
        assert stream.read(4) == bytes(range(10, 14))
        stream.seek(-3, io.SEEK_END)
        assert stream.read() == bytes(range(27, 30))
    assert member.read(1000) == bytes(range(200))


def test_a_folder_has_the_same_names_as_its_archive(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(b"abc")
    files = open_files(tmp_path)
    assert list(files) == ["folder/b"]
    assert files.read("folder/b", 3) == b"abc"
    with pytest.raises(ConfigurationError, match="more than the 2 bytes"):
        files.read("folder/b", 2)


@pytest.mark.parametrize("name", ["../b", "/etc/b", "a/../../b"])
def test_a_member_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="lies outside of it"):
        open_files(pack(tmp_path / "a.nemo", (name, b"x")))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_is_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(ConfigurationError, match="is a link or no plain file"):
        open_files(link(tmp_path / "a.nemo", kind))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_archive_is_to_be_unpacked(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ConfigurationError, match=r"unpack it \(tar -xf\)"):
        open_files(pack(tmp_path / "a.nemo", ("a", b"x"), mode=mode))


@pytest.mark.parametrize("left", [3, 100, 700, 3000])
def test_a_truncated_archive_is_refused(tmp_path: Path, left: int) -> None:
    packed = pack(tmp_path / "a.nemo", ("a", bytes(100)), ("b", bytes(5000)))
    packed.write_bytes(packed.read_bytes()[:left])
    with pytest.raises(ConfigurationError, match=r"cut short|not a whole tar archive"):
        open_files(packed)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        open_files(tmp_path / "none.nemo")
    (tmp_path / "text.nemo").write_text("a text " * 200)
    with pytest.raises(ConfigurationError, match="not a whole tar archive"):
        open_files(tmp_path / "text.nemo")
