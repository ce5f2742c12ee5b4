import numpy as np
import pytest
import torch

from apd_bench.core.errors import CorruptFile, UsageError


def test_subset_keeps_ids_labels_and_pixels_together(make_split):
    split = make_split([0, 1, 2, 0, 1])
    part = split.subset([4, 2]).subset([1])
    assert part.ids == ("toy/train/000002",)
    assert part.labels.tolist() == [2]
    assert part.images().unique().tolist() == [2]


@pytest.mark.parametrize("indexes", [[3, 0], torch.tensor([3, 0]), np.array([3, 0]), [-2, -5]])
def test_indexes_may_be_a_list_tensor_or_array(make_split, indexes):
    split = make_split([0, 1, 2, 0, 1])
    assert split.images(indexes)[:, 0, 0, 0].tolist() == [3, 0]


def test_an_index_outside_is_an_error(make_split):
    with pytest.raises(IndexError):
        make_split([0, 1]).images([2])


def test_an_empty_request_gives_an_empty_batch(make_split):
    assert make_split([0, 1]).pixels([]).shape == (0, 3, 2, 2)


def test_repeated_ids_are_named(make_split):
    with pytest.raises(CorruptFile, match=r"'toy/train/000001' more than once"):
        make_split([0, 1, 2]).subset([1, 0, 1])


def test_unknown_split_lists_those_that_exist(make_dataset):
    with pytest.raises(UsageError, match="It has: test"):
        make_dataset(train=False).split("train")
