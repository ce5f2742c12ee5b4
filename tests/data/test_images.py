import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from apd_bench.core import bounds
from apd_bench.core.errors import CorruptFile
from apd_bench.data.images import decode, remarks, square


def noise(width, height):
    return Image.fromarray(np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8))


@pytest.mark.parametrize("shape", [(50, 40), (40, 50), (33, 57), (16, 16), (16, 41), (7, 9), (101, 16)])
@pytest.mark.parametrize("size", [16, 15])
def test_crop_is_torchvisions_resize_and_centre_crop(shape, size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = noise(*shape)
    bicubic = transforms.InterpolationMode.BICUBIC
    pipeline = transforms.Compose([transforms.Resize(size, bicubic), transforms.CenterCrop(size)])
    expected = np.asarray(pipeline(image)).transpose(2, 0, 1)
    assert np.array_equal(square(image, size, "crop"), expected)


@pytest.mark.parametrize("side", [9_460, 15_000, 60_000])
def test_an_image_that_would_fill_the_memory_is_refused_by_its_header(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I4s", len(header), b"IHDR") + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    with pytest.raises(CorruptFile, match=r"bomb\.png cannot be decoded: .*pixels"):
        decode(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I4s", 0, b"IDAT"), 16, "crop", "bomb.png")


def test_squash_ignores_the_aspect_ratio_and_the_right_size_is_untouched():
    image = noise(50, 40)
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert np.array_equal(square(image, 16, "squash"), expected)
    assert not np.array_equal(square(image, 16, "squash"), square(image, 16, "crop"))
    image = noise(16, 16)
    for resize in ("crop", "squash"):
        assert np.array_equal(square(image, 16, resize), np.asarray(image).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode):
    image = noise(20, 20).convert("L") if mode in ("L", "1", "LA") else noise(20, 20)
    assert square(image.convert(mode), 8).shape == (3, 8, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_formats_of_image_sets_decode(kind):
    found = decode(encoded(Image.new("RGB", (20, 10), (200, 30, 10)), kind), 8, "crop", "x")
    assert found.shape == (3, 8, 8)
    assert abs(int(found[0, 4, 4]) - 200) < 6


def test_truncated_and_foreign_bytes_are_corrupt_by_name():
    for data in (encoded(noise(64, 64), "JPEG")[:500], b"", b"<html></html>", b"%PDF-1.4"):
        with pytest.raises(CorruptFile, match=r"cat\.jpg cannot be decoded"):
            decode(data, 8, "crop", "cat.jpg")


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_values_of_16_bits_are_scaled(kind):
    values = np.array([[0, 128, 257], [32896, 65407, 65535]], np.uint16)
    data = encoded(Image.fromarray(values), kind)
    found = decode(data, 4, "squash", "x")
    assert found.min() == 0 and found.max() == 255
    exact = np.asarray(Image.fromarray(np.array([[0, 0, 1], [128, 255, 255]], np.uint8)).resize((4, 4), 3))
    assert np.array_equal(found, np.stack([exact] * 3))
    assert remarks(data, "x") == {"16-bit"}


@pytest.mark.parametrize(("dtype", "kind"), [(np.int32, "whole numbers"), (np.float32, "floats")])
def test_pixels_of_32_bits_are_refused_by_name(dtype, kind):
    data = encoded(Image.fromarray(np.ones((4, 4), dtype)), "TIFF")
    for read in (lambda: decode(data, 4, "crop", "deep.tif"), lambda: remarks(data, "deep.tif")):
        with pytest.raises(CorruptFile, match=rf"deep\.tif cannot be decoded: its pixels are {kind} of 32 bits"):
            read()


@pytest.mark.parametrize("orientation", range(1, 10))
def test_exif_orientation_is_told_and_applied_only_where_asked(orientation):
    picture = noise(6, 6)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture, "PNG", exif=exif)
    assert np.array_equal(decode(data, 6, "crop", "x"), square(picture, 6))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data, 6, "crop", "x", "exif"), square(upright, 6))
    assert remarks(data, "x") == ({"turned"} if 1 < orientation < 9 else set())


def test_an_image_that_unfolds_to_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(bounds, "PIXELS", 99)
    assert decode(encoded(noise(9, 11), "PNG"), 4, "crop", "x").shape == (3, 4, 4)
    with pytest.raises(CorruptFile, match=r"big\.png cannot be decoded: it has 10 x 10 pixels"):
        decode(encoded(noise(10, 10), "PNG"), 4, "crop", "big.png")
    with pytest.raises(CorruptFile, match=r"big\.png cannot be decoded"):
        decode(encoded(Image.new("1", (20000, 20000)), "PNG"), 4, "crop", "big.png")
