"""Prompt states on disk: they come back bit for bit, and what was tampered with is refused."""

import json

import pytest
import torch

from apd_bench.core.errors import CorruptFile, OtherSchema
from apd_bench.methods.recipes import load_recipe
from apd_bench.training.fit import fit
from apd_bench.training.prompt_states import CARD, TENSORS, PromptState, digest_of, has_state, load_state, save_state
from apd_bench.training.toy import toy_fit

QUICK = {"training": {"epochs": 1, "warmup_epochs": 0}}


@pytest.fixture(scope="module")
def state(backbone, data):
    return fit(toy_fit(load_recipe("apd", QUICK), backbone, data), backbone, data)


def test_a_state_comes_back_as_it_was_even_without_tensors(state, tmp_path):
    save_state(tmp_path / "one", state)
    back = load_state(tmp_path / "one")
    assert digest_of(back.state) == digest_of(state.state)
    assert back.recipe == state.recipe
    assert back.card["sample_ids"] == state.card["sample_ids"] and back.card["digest"] == digest_of(state.state)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [CARD, TENSORS]
    save_state(tmp_path, PromptState({}, {"recipe": {}}))
    assert load_state(tmp_path).state == {}


def test_a_folder_without_a_card_is_not_a_state(state, tmp_path):
    save_state(tmp_path, state)
    assert has_state(tmp_path)
    (tmp_path / CARD).unlink()
    assert not has_state(tmp_path)
    with pytest.raises(CorruptFile, match=r"cannot be read.* Move .* aside"):
        load_state(tmp_path)


def test_changed_tensors_are_refused(state, tmp_path):
    save_state(tmp_path, state)
    name = next(iter(state.state))
    changed = PromptState(state.state | {name: state.state[name] + 1e-3}, state.card)
    save_state(tmp_path / "other", changed)
    (tmp_path / "other" / TENSORS).replace(tmp_path / TENSORS)
    with pytest.raises(CorruptFile, match="digest"):
        load_state(tmp_path)


@pytest.mark.parametrize("file", [CARD, TENSORS])
def test_a_torn_file_is_refused(state, tmp_path, file):
    save_state(tmp_path, state)
    path = tmp_path / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(CorruptFile, match="run the same command again"):
        load_state(tmp_path)


def test_a_card_of_another_version_is_refused(state, tmp_path):
    save_state(tmp_path, state)
    card = json.loads((tmp_path / CARD).read_text())
    for schema, refusal in ((0, CorruptFile), (None, CorruptFile), (99, OtherSchema)):
        (tmp_path / CARD).write_text(json.dumps(card | {"schema": schema}))
        with pytest.raises(refusal, match=r"of version 1|a later apd-bench"):
            load_state(tmp_path)


def test_the_digest_sees_names_shapes_and_values():
    tensor = torch.arange(6.0)
    states = ({"a": tensor}, {"b": tensor}, {"a": tensor.view(2, 3)}, {"a": tensor + 1})
    assert len({digest_of(state) for state in states}) == 4
    assert digest_of({"a": tensor, "b": tensor}) == digest_of({"b": tensor, "a": tensor})
