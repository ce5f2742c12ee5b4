import random
from collections import Counter

import numpy as np
import pytest
import torch

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, UsageError
from apd_bench.data.protocols import exclude_samples, few_shot, few_shot_dataset, limit_split, select_classes
from apd_bench.data.splits import ImageSplit

MIXED = [2, 0, 2, 1, 0, 1, 2, 2, 0, 1, 1, 2, 0, 0, 2, 1, 2]


def coop_draw(train, val, shots, seed):
    """What `generate_fewshot_dataset` of Dassl does with the global generator, on positions instead of items."""
    random.seed(seed)
    out = []
    for labels, k in ((train, shots), (val, min(shots, 4))):
        tracker = {}
        for place, label in enumerate(labels):
            tracker.setdefault(label, []).append(place)
        drawn = []
        for items in tracker.values():
            drawn.extend(random.sample(items, k) if len(items) >= k else items)
        out.append(drawn)
    return out[0], out[1]


@pytest.mark.parametrize("shots", [1, 2, 4, 5, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_draw_is_that_of_coop(make_split, shots, seed):
    val_labels = MIXED[::-1]
    train, val = few_shot(make_split(MIXED), make_split(val_labels, "val"), shots, seed)
    expected_train, expected_val = coop_draw(MIXED, val_labels, shots, seed)
    assert train.ids == tuple(f"toy/train/{place:06d}" for place in expected_train)
    assert val is not None
    assert val.ids == tuple(f"toy/val/{place:06d}" for place in expected_val)


def test_seed_zero_is_a_seed_and_the_global_generator_is_left_alone(make_split):
    random.seed(5)
    before = random.getstate()
    first, again, other = (few_shot(make_split([0] * 50), None, 4, seed)[0].ids for seed in (0, 0, 1))
    assert first == again != other
    assert random.getstate() == before


def test_the_draw_of_seed_one_never_changes_all_shots_keep_the_order_and_none_are_refused(make_split):
    split = make_split(MIXED)
    assert [int(name[-6:]) for name in few_shot(split, None, 2, 1)[0].ids] == [2, 11, 1, 8, 3, 10]
    assert few_shot(split, None, -1, 1)[0].ids == split.ids
    for shots in (0, -2):
        with pytest.raises(UsageError, match="shots"):
            few_shot(split, None, shots, 1)


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 12])
def test_a_limit_is_balanced_and_nested(make_split, limit):
    split = make_split(MIXED)
    part = limit_split(split, limit)
    counts = Counter(part.labels.tolist())
    assert len(part) == limit
    assert max(counts.values()) - min(counts.get(label, 0) for label in range(3)) <= 1
    assert set(part.ids) <= set(limit_split(split, limit + 1).ids)
    assert list(part.ids) == sorted(part.ids)


def test_a_limit_depends_on_ids_not_on_order_and_no_limit_keeps_the_split(make_split):
    split = make_split(MIXED)
    turned = split.subset(list(range(len(split)))[::-1])
    assert set(limit_split(split, 6).ids) == set(limit_split(turned, 6).ids)
    split = make_split(MIXED)
    assert limit_split(split, None) is split
    assert limit_split(split, 1000) is split


def test_a_published_list_is_used_for_its_length(make_split):
    split = make_split([0, 0, 0, 1, 1, 1], "test")
    published = ("toy/test/000000", "toy/test/000001")
    marked = ImageSplit(split.name, split.ids, split.labels, split.store, split.rows, {2: published})
    assert limit_split(marked, 2).ids == published
    assert sorted(limit_split(marked, 4).labels.tolist()) == [0, 0, 1, 1]


def test_base_and_new_halves(make_dataset):
    dataset = make_dataset(count=5)
    base, new = select_classes(dataset, "base"), select_classes(dataset, "new")
    assert base.classes == ("class 0", "class 1", "class 2")
    assert new.classes == ("class 3", "class 4")
    assert new.test.labels.unique().tolist() == [0, 1] and new.test.labels.dtype == torch.int64
    assert set(base.test.ids) | set(new.test.ids) == set(dataset.test.ids)
    originals = dict(zip(dataset.test.ids, dataset.test.labels.tolist(), strict=True))
    assert [originals[name] - 3 for name in new.test.ids] == new.test.labels.tolist()


def test_the_draw_comes_before_the_class_selection(make_dataset):
    dataset = make_dataset(count=4, per_class=20)
    assert dataset.train is not None
    everything = few_shot(dataset.train, None, 3, 1)[0]
    new = few_shot_dataset(dataset, shots=3, seed=1, classes="new").train
    assert new is not None
    assert new.ids == everything.ids[6:]
    assert new.labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_a_set_does_not_have_is_refused(make_dataset):
    with pytest.raises(IncompatibleChoice, match="only a test split"):
        few_shot_dataset(make_dataset(train=False), shots=1, seed=1)
    with pytest.raises(IncompatibleChoice, match="at least 2"):
        select_classes(make_dataset(count=3), "new")
    with pytest.raises(UsageError, match="It has: test"):
        make_dataset(train=False).split("train")


def test_excluded_samples_are_gone_and_recorded_and_have_to_exist(make_dataset):
    dataset = make_dataset()
    fewer = exclude_samples(dataset, ["toy/test/000003"])
    assert len(fewer.test) == len(dataset.test) - 1
    assert "toy/test/000003" not in fewer.test.ids
    assert fewer.origin["excluded"] == ["toy/test/000003"]
    with pytest.raises(UsageError, match=r"'toy/test/999'.*'toy/test/000000'"):
        exclude_samples(make_dataset(), ["toy/test/999"])


def test_subset_keeps_ids_labels_and_pixels_together_and_indexes_are_checked(make_split):
    split = make_split([0, 1, 2, 0, 1])
    part = split.subset([4, 2]).subset([1])
    assert part.ids == ("toy/train/000002",)
    assert part.labels.tolist() == [2]
    assert part.images().unique().tolist() == [2]
    with pytest.raises(IndexError):
        make_split([0, 1]).images([2])
    assert make_split([0, 1]).pixels([]).shape == (0, 3, 2, 2)
    with pytest.raises(CorruptFile, match=r"'toy/train/000001' more than once"):
        make_split([0, 1, 2]).subset([1, 0, 1])


@pytest.mark.parametrize("indexes", [[3, 0], torch.tensor([3, 0]), np.array([3, 0]), [-2, -5]])
def test_indexes_may_be_a_list_tensor_or_array(make_split, indexes):
    split = make_split([0, 1, 2, 0, 1])
    assert split.images(indexes)[:, 0, 0, 0].tolist() == [3, 0]
