"""Text for files: JSON whose outer levels have lines of their own."""

import json

import pytest

from apd_bench.core.text import json_text


@pytest.mark.parametrize("deep", range(5))
def test_json_is_the_same_value_at_any_depth(deep):
    value = {"b": [{"y": [1, 2.5], "x": {}}, []], "a": None, "é": "line\nbreak", "c": {"k": True}}
    assert json.loads(json_text(value, deep)) == value


def test_levels_down_to_the_depth_have_lines_and_sorted_keys():
    value = {"b": [{"y": [1, 2], "x": 0}, 3], "a": {}}
    assert json_text(value, 0) == '{"a":{},"b":[{"x":0,"y":[1,2]},3]}'
    assert json_text(value, 1) == '{\n "a": {},\n "b": [{"x":0,"y":[1,2]},3]\n}'
    assert json_text(value, 2) == '{\n "a": {},\n "b": [\n  {"x":0,"y":[1,2]},\n  3\n ]\n}'


@pytest.mark.parametrize("deep", [0, 1, 3])
def test_what_is_no_number_is_refused_where_it_is_not_allowed(deep):
    value = {"a": [1, {"b": float("nan")}]}
    assert "NaN" in json_text(value, deep)
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text(value, deep, allow_nan=False)
