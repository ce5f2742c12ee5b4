"""Sizes are judged before anything is parsed."""

import pytest

from apd_bench.core import bounds
from apd_bench.core.bounds import parse_json, safetensors_header


def test_json_is_bounded_by_bytes_and_depth_and_what_is_not_packed_may_be_large():
    assert parse_json(b'{"a": [1, "[[{", null]}') == {"a": [1, "[[{", None]}
    assert parse_json("[" * 64 + "]" * 64) and parse_json(b"[{}" + b",{}" * 999 + b"]") == [{}] * 1000
    for text in ("[" * 65 + "]" * 65, '{"":' * 10**6):
        with pytest.raises(ValueError, match="nested deeper"):
            parse_json(text)
    with pytest.raises(ValueError, match="999 bytes are more than the 99"):
        parse_json("9" * 999, largest=99)
    assert parse_json("[Infinity, NaN]", constants=True)[0] == float("inf")
    bounds.inflated(2**40, 2**40)
    with pytest.raises(ValueError, match="would take"):
        bounds.inflated(2**40, 2**30)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', "[NaN]", "[-Infinity]", "{", b"\xff", "9" * 5000])
def test_json_that_others_read_otherwise_is_refused(text):
    with pytest.raises(ValueError):
        parse_json(text)


@pytest.mark.parametrize("start", [b"", b"\xff" * 8, (93).to_bytes(8, "little")])
def test_a_header_that_is_longer_than_its_file_is_refused(start):
    safetensors_header((92).to_bytes(8, "little"), 100)
    with pytest.raises(ValueError, match="header is longer"):
        safetensors_header(start, 100)
