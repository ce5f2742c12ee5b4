import subprocess
import sys

import pytest

from apd_bench.core.errors import CorruptFile, UnknownName, UsageError
from apd_bench.core.registry import DATASETS
from apd_bench.data.cards import cards, parse_card
from apd_bench.data.catalog import benchmark_spec, builtin

# CoOp (IJCV 2022), table 8: classes, train, val, test.
COOP_TABLE = {
    "imagenet": (1000, 1_281_167, None, 50_000),
    "caltech101": (100, 4_128, 1_649, 2_465),
    "oxford_pets": (37, 2_944, 736, 3_669),
    "stanford_cars": (196, 6_509, 1_635, 8_041),
    "oxford_flowers": (102, 4_093, 1_633, 2_463),
    "food101": (101, 50_500, 20_200, 30_300),
    "fgvc_aircraft": (100, 3_334, 3_333, 3_333),
    "sun397": (397, 15_880, 3_970, 19_850),
    "dtd": (47, 2_820, 1_128, 1_692),
    "eurosat": (10, 13_500, 5_400, 8_100),
    "ucf101": (101, 7_639, 1_898, 3_783),
    "imagenetv2": (1000, None, None, 10_000),
    "imagenet_sketch": (1000, None, None, 50_889),
    "imagenet_a": (200, None, None, 7_500),
    "imagenet_r": (200, None, None, 30_000),
    "cifar10": (10, 40_000, 10_000, 10_000),
    "cifar100": (100, 40_000, 10_000, 10_000),
    "stl10": (10, 4_000, 1_000, 8_000),
}


def test_every_set_of_the_protocols_has_a_card_with_the_counts_of_the_literature():
    counts = {
        name: (len(card.classes), *(card.counts.get(split) for split in ("train", "val", "test")))
        for name, card in cards().items()
    }
    assert counts == COOP_TABLE and list(counts) == list(COOP_TABLE)


@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
def test_a_card_is_complete(card):
    twice = {name for name in card.classes if card.classes.count(name) > 1}
    assert twice <= {"missile", "sunglasses"}, "only OpenAI's list of ImageNet names repeats two of them"
    assert not [name for name in card.classes if "_" in name or name != name.strip()]
    assert card.template.count("{}") == 1
    assert card.licence and card.source.startswith("https://") and card.citation and card.description
    assert card.downloads or card.manual
    assert bool(card.split_file) == bool(card.split_url)
    assert not card.shard_classes or set(card.shard_classes) - {""} == set(card.classes)
    for download in card.downloads:
        kind, _, digest = download.checksum.partition(":")
        assert len(digest) == {"sha256": 64, "md5": 32, "": 0}[kind]


def test_class_names_templates_and_new_splits_follow_coop():
    for name, places in {
        "oxford_pets": {0: "abyssinian"},
        "caltech101": {0: "face", 1: "leopard", 4: "airplane"},
        "stanford_cars": {0: "2000 AM General Hummer SUV"},
        "sun397": {9: "indoor apse"},
        "ucf101": {0: "Apply Eye Makeup", 100: "Yo Yo"},
        "eurosat": {0: "Annual Crop Land", 9: "Sea or Lake"},
        "imagenet": {0: "tench"},
        "food101": {16: "cheese plate", 17: "cheesecake"},
        "fgvc_aircraft": {0: "707-320"},
        "dtd": {46: "zigzagged"},
    }.items():
        assert {label: cards()[name].classes[label] for label in places} == places
    for name, template in {
        "food101": "a photo of {}, a type of food.",
        "dtd": "{} texture.",
        "eurosat": "a centered satellite photo of {}.",
        "ucf101": "a photo of a person doing {}.",
    }.items():
        assert cards()[name].template == template
    anew = {name for name, card in cards().items() if card.derives_everything}
    assert anew == {"caltech101", "oxford_flowers", "food101", "dtd", "eurosat"}


def test_a_damaged_card_is_named(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text('name = "odd"\n')
    with pytest.raises(CorruptFile, match=r"odd\.toml"):
        parse_card(path)


def test_groups_and_order():
    groups = [spec.group for spec in builtin()]
    assert groups == sorted(groups, key=["embedded", "benchmark"].index)
    assert [spec.name for spec in builtin() if spec.group == "benchmark"] == list(cards())


@pytest.mark.parametrize(
    ("asked", "name"),
    [("pets", "oxford_pets"), ("OxfordPets", "oxford_pets"), ("ImageNet-A", "imagenet_a"), ("DTD", "dtd")],
)
def test_the_names_that_people_use(asked, name):
    assert DATASETS.get(asked).name == name


def test_another_split_shows_in_the_name_and_unknown_ones_list_the_known():
    assert benchmark_spec(cards()["dtd"]).options == {}
    spec = DATASETS.get("pets@derived")
    assert (spec.name, spec.title) == ("oxford_pets@derived", "OxfordPets (derived split)")
    assert spec.options["split"] == "derived"
    assert DATASETS.get("oxford_pets(problems='exclude')").options == {"card": "oxford_pets", "problems": "exclude"}
    with pytest.raises(UsageError, match="official, publisher, derived"):
        DATASETS.get("dtd@mine")
    with pytest.raises(UnknownName, match="Did you mean 'split'"):
        DATASETS.get("dtd(splt='derived')")
    with pytest.raises(UnknownName, match="Unknown dataset"):
        DATASETS.get("nothing@derived")


def test_specs_identities_and_checks_need_no_torch():
    code = (
        "import sys; from apd_bench.core.identity import counted; from apd_bench.core.registry import DATASETS;"
        "specs = [DATASETS.get(name) for name in DATASETS.names()]; [counted(spec) for spec in specs];"
        "assert not {'torch', 'scipy', 'PIL'} & set(sys.modules), 'heavy';"
        "from apd_bench.data.check import check_set, what_is_missing; import apd_bench.data.prepare;"
        "[(what_is_missing(spec), check_set(spec, ())) for spec in specs];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
