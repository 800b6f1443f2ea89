"""Sound archives, and hostile ones."""

import io
import stat
import tarfile
import zipfile

import pytest

from audiodd_jax.data import archives
from audiodd_jax.errors import UserError

CONTENT = b"some bytes " * 50


def tar(path, members):
    with tarfile.open(path, "w:gz") as packed:
        for info, data in members:
            info.size = len(data)
            packed.addfile(info, io.BytesIO(data))
    return path


def tar_member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for info, data in members:
            packed.writestr(info, data)
    return path


def zip_member(name, mode=0):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


@pytest.fixture
def place(tmp_path):
    """A folder to unpack to, next to a file that must not change."""
    (tmp_path / "victim").write_text("untouched")
    (tmp_path / "place").mkdir()
    return tmp_path / "place"


def assert_nothing_written(place, archive):
    assert not list(place.iterdir())
    siblings = {p.name for p in place.parent.iterdir()}
    assert siblings == {"place", "victim", archive.name}
    assert (place.parent / "victim").read_text() == "untouched"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_extract(tmp_path, kind):
    path = tmp_path / "archive"
    if kind == "tar":
        folder = tar_member("./in", tarfile.DIRTYPE)
        tar(path, [(folder, b""), (tar_member("./in/a.txt"), CONTENT)])
    else:
        zipped(path, [(zip_member("in/"), b""), (zip_member("in/a.txt"), CONTENT)])
    assert archives.is_archive(path)
    folder = archives.extract(path, tmp_path / "out", max_bytes=len(CONTENT))
    assert [p.name for p in folder.iterdir()] == ["in"]
    assert (folder / "in" / "a.txt").read_bytes() == CONTENT
    # Unpacked once: the second call touches nothing.
    path.unlink()
    assert archives.extract(path, tmp_path / "out", max_bytes=0) == folder


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (tar_member("../victim"), "is outside"),
        (tar_member("in/../../victim"), "is outside"),
        (tar_member("/tmp/audiodd-escape.txt"), "is outside"),
        (tar_member("link", tarfile.SYMTYPE, "/etc/passwd"), "is a link"),
        (tar_member("link", tarfile.SYMTYPE, "good"), "is a link"),
        (tar_member("link", tarfile.LNKTYPE, "good"), "is a link"),
        (tar_member("device", tarfile.CHRTYPE), "is a device"),
        (tar_member("pipe", tarfile.FIFOTYPE), "is a device"),
        (tar_member("good"), "a damaged archive"),  # twice
        (tar_member("good/below"), "a damaged archive"),  # below a file
        (tar_member("x" * 300), "a damaged archive"),
    ],
    ids=lambda value: getattr(value, "name", value)[:20],
)
def test_hostile_tar_members_write_nothing(place, bad, words):
    members = [(tar_member("good"), CONTENT), (bad, b"")]
    path = tar(place.parent / "a.tar.gz", members)
    with pytest.raises(UserError, match=words):
        archives.extract(path, place / "out", max_bytes=10_000)
    assert_nothing_written(place, path)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (zip_member("../victim"), "is outside"),
        (zip_member("/tmp/audiodd-escape.txt"), "is outside"),
        (zip_member("C:/escape.txt"), "is outside"),
        (zip_member("link", stat.S_IFLNK | 0o777), "is a link"),
        (zip_member("device", stat.S_IFCHR | 0o600), "is a device"),
    ],
    ids=lambda value: getattr(value, "filename", value),
)
def test_hostile_zip_members_write_nothing(place, bad, words):
    members = [(zip_member("good"), CONTENT), (bad, b"/etc/passwd")]
    path = zipped(place.parent / "a.zip", members)
    with pytest.raises(UserError, match=words):
        archives.extract(path, place / "out", max_bytes=10_000)
    assert_nothing_written(place, path)


def test_size_bombs(place, monkeypatch):
    bomb = bytes(50 << 20)  # 50 MB that pack to 50 kB
    path = tar(place.parent / "a", [(tar_member("a"), bomb)])
    with pytest.raises(UserError, match="unpacks to over 1000000 bytes"):
        archives.extract(path, place / "out", max_bytes=1_000_000)
    zipped(path, [(zip_member(str(i)), bomb[: 1 << 20]) for i in range(3)])
    with pytest.raises(UserError, match="unpacks to over 2000000 bytes"):
        archives.extract(path, place / "out", max_bytes=2_000_000)
    monkeypatch.setattr(archives, "_MAX_FILES", 10)
    tar(path, [(tar_member(str(i)), b"") for i in range(11)])
    with pytest.raises(UserError, match="holds over 10 members"):
        archives.extract(path, place / "out", max_bytes=1_000_000)
    assert_nothing_written(place, path)


def test_a_zip_that_lies_about_its_sizes(place):
    """The directory announces ten bytes of a member of 550."""
    path = zipped(place.parent / "a.zip", [(zip_member("a"), CONTENT)])
    data = path.read_bytes()
    size = len(CONTENT).to_bytes(4, "little")
    assert data.count(size) == 2
    path.write_bytes(data.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match="a damaged archive"):
        archives.extract(path, place / "out", max_bytes=1000)
    assert_nothing_written(place, path)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("cut", [10, 200, 0.5, 0.95])
def test_truncated_archives_write_nothing(place, kind, cut):
    path = place.parent / "a"
    noise = bytes((i * i * 31 + i // 7) % 256 for i in range(20_000))
    if kind == "tar":
        tar(path, [(tar_member(f"{i}"), noise) for i in range(4)])
    else:
        zipped(path, [(zip_member(f"{i}"), noise) for i in range(4)])
    data = path.read_bytes()
    path.write_bytes(data[: cut if cut > 1 else int(cut * len(data))])
    with pytest.raises(UserError, match="a damaged archive"):
        archives.extract(path, place / "out", max_bytes=10**6)
    assert_nothing_written(place, path)


def test_every_flipped_byte_is_refused_or_harmless(place):
    path = place.parent / "a"
    tar(path, [(tar_member(f"in/{i}"), CONTENT) for i in range(3)])
    data = path.read_bytes()
    for at in range(0, len(data), 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:
            archives.extract(path, place / f"out{at}", max_bytes=10**6)
        except UserError:
            assert not (place / f"out{at}").exists()
    names = {p.name for p in place.parent.iterdir()}
    assert names == {"place", "victim", "a"}
    assert {p.name[:3] for p in place.iterdir()} <= {"out"}
