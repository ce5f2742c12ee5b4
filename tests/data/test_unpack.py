import tarfile
import zipfile

import pytest

from apd_bench.core.errors import CorruptFile
from apd_bench.data.unpack import unpack
from tests.data.replicas import member


def tar(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member(archive, name, content)
    return path


def found(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_compression(tmp_path, mode):
    unpack(tar(tmp_path / "a", {"x/1.jpg": b"1", "x/2.jpg": b"2"}, mode), tmp_path / "out")
    assert found(tmp_path / "out") == {"x/1.jpg", "x/2.jpg"}


def test_zip_with_strip_and_into(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("sketch/n01/1.jpg", b"1")
        archive.writestr("readme", b"r")
    unpack(tmp_path / "a.zip", tmp_path / "out", strip="sketch", into="images")
    assert found(tmp_path / "out") == {"images/n01/1.jpg"}


def test_an_archive_inside_the_archive(tmp_path):
    inner = tar(tmp_path / "inner.tar.gz", {"101/ant/1.jpg": b"1"}).read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("caltech/inner.tar.gz", inner)
    unpack(tmp_path / "a.zip", tmp_path / "out", inner="inner.tar.gz")
    assert found(tmp_path / "out") == {"101/ant/1.jpg"}


def test_what_is_there_already_stays(tmp_path):
    (tmp_path / "out/x").mkdir(parents=True)
    (tmp_path / "out/x/mine.txt").write_text("mine")
    unpack(tar(tmp_path / "a", {"x/1.jpg": b"1"}), tmp_path / "out")
    assert found(tmp_path / "out") == {"x/1.jpg", "x/mine.txt"}


@pytest.mark.parametrize("cut", [0.5, 0.95])
def test_a_torn_archive_leaves_nothing(tmp_path, cut):
    path = tar(tmp_path / "a", {f"x/{n}.jpg": bytes([n]) * 9000 for n in range(50)}, "w:gz")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert found(tmp_path / "out") == set()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "x/../../evil"])
def test_nothing_leaves_the_folder(tmp_path, name):
    with pytest.raises(CorruptFile, match="outside"):
        unpack(tar(tmp_path / "a", {name: b"x"}), tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("evil"))


def test_another_archive_than_expected(tmp_path):
    path = tar(tmp_path / "a", {"x/1.jpg": b"1"})
    with pytest.raises(CorruptFile, match="no folder y"):
        unpack(path, tmp_path / "out", strip="y")
    with pytest.raises(CorruptFile, match="does not contain z"):
        unpack(path, tmp_path / "out", inner="z.tar")
