import logging
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock, Mock

import numpy as np
import pytest
from PIL import Image

from apd_bench.core.errors import CorruptFile
from apd_bench.data import cache as cache_module
from apd_bench.data import stores
from apd_bench.data.cache import PixelCache, cache_folder
from apd_bench.data.listing import Item, Source
from apd_bench.data.stores import FilePixels

SIZE = 6


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        Image.new("RGB", (9, 9), (number, 2 * number, 3)).save(folder / f"{number}.png")
    return folder


def make_store(pictures, cache):
    items = [Item(f"{number}.png", 0) for number in range(12)]
    ids = [f"toy/test/{item.key}" for item in items]
    source = Source(("a",), {"test": items}, pictures, "folders")
    return FilePixels(items, ids, source, "toy", image_size=SIZE, resize="crop", cache=cache)


def reds(store, rows):
    return store.read(np.array(rows))[:, 0, 0, 0].tolist()


@pytest.fixture
def decode(monkeypatch):
    """The decoder, which tells of its calls."""
    monkeypatch.setattr(stores, "decode", Mock(wraps=stores.decode))
    return stores.decode


def test_a_second_process_decodes_nothing(pictures, tmp_path, decode):
    assert reds(make_store(pictures, tmp_path / "cache"), [3, 1, 11]) == [3, 1, 11]
    decode.reset_mock()
    again = make_store(pictures, tmp_path / "cache")
    assert reds(again, [11, 3]) == [11, 3]
    assert reds(again, [11, 3]) == [11, 3]
    assert not decode.called
    assert reds(again, [3, 4]) == [3, 4]
    assert [Path(call.args[3]).name for call in decode.call_args_list] == ["4.png"]


def test_a_changed_image_and_a_torn_slot_are_decoded_again(pictures, tmp_path):
    reds(make_store(pictures, tmp_path / "cache"), list(range(12)))
    Image.new("RGB", (9, 9), (200, 0, 0)).save(pictures / "7.png")
    os.utime(pictures / "7.png", ns=(1, 1))
    (path,) = (tmp_path / "cache").rglob("pixels.u8")
    data = bytearray(path.read_bytes())
    data[5 * 3 * SIZE * SIZE] ^= 255
    path.write_bytes(bytes(data))
    assert reds(make_store(pictures, tmp_path / "cache"), list(range(12))) == [*range(7), 200, *range(8, 12)]


def test_a_full_disk_is_said_once_and_does_not_stop_the_run(pictures, tmp_path, monkeypatch, caplog):
    def full(path, offset, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module, "_write", full)
    store = make_store(pictures, tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert reds(store, [0, 1, 2, 3]) == [0, 1, 2, 3]
        assert reds(store, [3, 4]) == [3, 4]
    assert sum("No space left" in record.message for record in caplog.records) >= 1
    monkeypatch.undo()
    assert reds(make_store(pictures, tmp_path / "cache"), [0, 1]) == [0, 1]


def test_a_write_that_only_half_fits_is_an_error(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"0" * 10)

    short = MagicMock()
    short.__enter__.return_value.write = lambda data: len(data) // 2
    monkeypatch.setattr(Path, "open", lambda *_, **__: short)
    with pytest.raises(OSError, match="only a part"):
        cache_module._write(path, 0, b"1234")


@pytest.mark.parametrize("cache", ["a file where the folder should be", None])
def test_without_a_cache_folder_images_stay_in_memory(pictures, tmp_path, decode, caplog, cache):
    if cache is not None:
        (tmp_path / "cache").write_text(cache)
    store = make_store(pictures, cache and tmp_path / "cache")
    with caplog.at_level(logging.WARNING):
        assert reds(store, [1, 2]) == reds(store, [1, 2]) == [1, 2]
    assert decode.call_count == 2
    assert ("No image cache" in caplog.text) == (cache is not None)


def test_several_writers_may_fill_the_same_cache(pictures, tmp_path):
    def fill(start):
        store = make_store(pictures, tmp_path / "cache")
        return reds(store, [(start + step) % 12 for step in range(12)])

    with ThreadPoolExecutor(6) as pool:
        for start, found in enumerate(pool.map(fill, range(6))):
            assert found == [(start + step) % 12 for step in range(12)]
    assert len(list((tmp_path / "cache").rglob("pixels.u8"))) == 1


def test_all_undecodable_images_are_named_with_the_way_out(pictures, tmp_path):
    good = (pictures / "3.png").read_bytes()
    (pictures / "3.png").write_bytes(good[: len(good) // 2])
    (pictures / "7.png").write_text("<html>not an image</html>")
    (pictures / "9.png").unlink()
    with pytest.raises(CorruptFile, match="3 images cannot be used") as caught:
        make_store(pictures, tmp_path / "cache").read(np.arange(12))
    for name in ("3", "7", "9"):
        assert f"toy/test/{name}.png" in caught.value.message
    assert "exclude=['toy/test/3.png', 'toy/test/7.png', 'toy/test/9.png']" in caught.value.hint


def test_a_store_travels_to_a_worker(pictures, tmp_path):
    store = make_store(pictures, tmp_path / "cache")
    reds(store, [1])
    blob = pickle.dumps(store)
    assert len(blob) < 10_000
    assert reds(pickle.loads(blob), [1, 2]) == [1, 2]  # noqa: S301


def test_batches_are_writable_copies(pictures, tmp_path):
    store = make_store(pictures, tmp_path / "cache")
    for _ in range(2):
        batch = store.read(np.array([1, 2]))
        assert batch.flags.writeable
        batch[:] = 0
    assert reds(store, [1, 2]) == [1, 2]


def test_the_folder_depends_on_samples_resize_and_size_and_an_empty_slot_is_no_image(tmp_path):
    def folder(resize="crop", size=224, ids=("x", "y")):
        return cache_folder(tmp_path, "a", "test", resize, size, list(ids))

    assert folder() == folder()
    assert len({folder(), folder("squash"), folder(size=225), folder(ids=["xy"]), folder(ids=["y", "x"])}) == 5
    cache = PixelCache(tmp_path / "c", 4, SIZE)
    assert cache.get(2, (0, 0)) is None
    assert cache.get_trusted(np.array([2])) is None
