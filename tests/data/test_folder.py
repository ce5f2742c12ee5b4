from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from apd_bench.data.catalog import folder_spec
from apd_bench.data.load import load_dataset
from apd_bench.errors import CorruptFile, MissingPrerequisite
from apd_bench.registry import DATASETS

pytestmark = pytest.mark.usefixtures("root")


def picture(path: Path, red: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    folder = tmp_path / "my_pets"
    for label, name in enumerate(("big_dog", "cat", "axolotl")):
        for number in range(10):
            picture(folder / name / f"{number}.png", 10 * label + number)
    return folder


def test_a_plain_folder_is_a_test_set(pets: Path) -> None:
    loaded = load_dataset(DATASETS.get(f"folder:{pets}"), image_size=8)
    assert loaded.classes == ("axolotl", "big dog", "cat")
    assert (loaded.train, len(loaded.test)) == (None, 30)
    assert loaded.template == "a photo of a {}."
    assert loaded.test.ids[0] == "folder/test/axolotl/0.png"
    assert loaded.test.images()[:, 0, 0, 0].tolist() == [*range(20, 30), *range(10), *range(10, 20)]


def test_split_folders_are_splits(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        for name in ("a", "b"):
            for number in range(count):
                picture(tmp_path / "set" / split / name / f"{number}.png")
    loaded = load_dataset(DATASETS.get(f"folder:{tmp_path / 'set'}"), image_size=8)
    assert (len(loaded.split("train")), loaded.val, len(loaded.test)) == (6, None, 4)


def test_settings_give_template_names_and_a_derived_split(pets: Path) -> None:
    pets.joinpath("dataset.toml").write_text(
        'template = "a drawing of a {}."\nsplit = "derived"\nlicence = "CC0"\n[classes]\nbig_dog = "mastiff"\n'
    )
    spec = DATASETS.get(f"folder:{pets}")
    loaded = load_dataset(spec, image_size=8)
    assert (loaded.template, spec.licence) == ("a drawing of a {}.", "CC0")
    assert loaded.classes == ("axolotl", "mastiff", "cat")
    assert [len(split) for split in loaded.splits()] == [15, 6, 9]
    assert loaded.origin["derived"] == ["train", "val", "test"]


def test_names_from_a_list(pets: Path) -> None:
    pets.joinpath("classnames.txt").write_text("gills\nwoof\nmeow\n")
    assert load_dataset(DATASETS.get(f"folder:{pets}"), image_size=8).classes == ("gills", "woof", "meow")
    pets.joinpath("classnames.txt").write_text("gills\nwoof\n")
    with pytest.raises(CorruptFile, match=r"names 2 classes, but there are 3 class folders"):
        DATASETS.unregister(f"folder:{pets}")
        DATASETS.get(f"folder:{pets}")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingPrerequisite, match="nothing does not exist"):
        DATASETS.get(f"folder:{tmp_path / 'nothing'}")


def test_a_folder_without_classes(tmp_path: Path) -> None:
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(CorruptFile, match="0 class folders"):
        DATASETS.get(f"folder:{tmp_path / 'flat'}")


def test_other_files_are_named(pets: Path) -> None:
    (pets / "cat" / "readme.md").write_text("x")
    with pytest.raises(CorruptFile, match=r"readme\.md is not an image"):
        load_dataset(DATASETS.get(f"folder:{pets}"), image_size=8)
    loaded = load_dataset(DATASETS.get(f"folder(path={str(pets)!r}, problems='exclude')"), image_size=8)
    assert len(loaded.test) == 30 and "readme.md" in loaded.origin["excluded"][0]


def test_the_name_is_what_was_typed(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pets.parent)
    assert DATASETS.get("folder:my_pets").name == "folder:my_pets"
    spec = DATASETS.get("folder(path='my_pets', split='derived')")
    assert DATASETS.get(spec.name) is spec
    assert len(load_dataset(spec, image_size=8).test) == 9


def test_moving_a_folder_keeps_its_identity_changing_it_does_not(pets: Path, tmp_path: Path) -> None:
    before = folder_spec(str(pets)).identity()
    moved = tmp_path / "elsewhere" / "my_pets"
    moved.parent.mkdir()
    pets.rename(moved)
    assert folder_spec(str(moved)).identity() == before
    picture(moved / "cat" / "new.png")
    assert folder_spec(str(moved)).identity() != before
