import os
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from apd_bench.core.errors import CorruptFile, MissingPrerequisite, UserError
from apd_bench.core.identity import counted
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import DATASETS
from apd_bench.data import digests
from apd_bench.data.catalog import folder_spec
from apd_bench.data.check import check_set
from apd_bench.data.names import excluding
from apd_bench.data.splits import load_dataset
from apd_bench.runner.selection import resolve, split_list
from apd_bench.suites import load_suite

pytestmark = pytest.mark.usefixtures("root")


def picture(path, red=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path)


def load(spec):
    return load_dataset(DATASETS.get(spec) if isinstance(spec, str) else spec, image_size=8)


@pytest.fixture
def pets(tmp_path):
    folder = tmp_path / "my_pets"
    for label, name in enumerate(("big_dog", "cat", "axolotl")):
        for number in range(10):
            picture(folder / name / f"{number}.png", 10 * label + number)
    return folder


def test_a_plain_folder_is_a_test_set(pets):
    loaded = load(f"folder:{pets}")
    assert loaded.classes == ("axolotl", "big dog", "cat")
    assert (loaded.train, len(loaded.test)) == (None, 30)
    assert loaded.template == "a photo of a {}."
    assert loaded.test.ids[0] == "folder/test/axolotl/0.png"
    assert loaded.test.images()[:, 0, 0, 0].tolist() == [*range(20, 30), *range(10), *range(10, 20)]


def test_settings_give_template_names_and_a_derived_split(pets):
    text = 'template = "a drawing of a {}."\nsplit = "derived"\nlicence = "CC0"\n[classes]\nbig_dog = "mastiff"\n'
    pets.joinpath("dataset.toml").write_text(text)
    spec = DATASETS.get(f"folder:{pets}")
    loaded = load(spec)
    assert (loaded.template, spec.licence) == ("a drawing of a {}.", "CC0")
    assert loaded.classes == ("axolotl", "mastiff", "cat")
    assert [len(split) for split in loaded.splits()] == [15, 6, 9]
    assert loaded.origin["derived"] == ["train", "val", "test"]


def classes_of(path, folders):
    """Class folder -> the name that its image is labelled with; image i lies in the i-th of the sorted folders."""
    for red, name in enumerate(sorted(folders)):
        picture(path / "test" / name / "1.png", red)
    loaded = load(folder_spec(str(path)))
    reds = loaded.test.images()[:, 0, 0, 0].tolist()
    names = [loaded.classes[label] for label in loaded.test.labels]
    return {sorted(folders)[red]: name for red, name in zip(reds, names, strict=True)}


@pytest.mark.parametrize(("folders", "lines", "expected"), [
    (["0", "1", "2", "10"], ["zero", "one", "two", "ten"], ["zero", "one", "two", "ten"]),
    (["ant", "bee", "cat_fish"], ["cat fish", "ant", "bee"], ["ant", "bee", "cat fish"]),
    (["ant", "bee", "cat"], ["gills", "woof", "meow"], ["gills", "woof", "meow"]),
    (["n01", "n02"], ["n02 great_white shark", "n03 ray", "n01 tench"], ["tench", "great white shark"]),
    (["n01", "n02"], ["n02 missile", "n01 missile"], ["missile", "missile"]),
], ids=["numbers", "folders in another order", "in place", "wnid name", "wnid name twice"])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_names_from_a_list(tmp_path, folders, lines, expected, encoding):
    tmp_path.joinpath("set").mkdir()
    tmp_path.joinpath("set", "classnames.txt").write_text("\r\n".join(lines), encoding)
    found = classes_of(tmp_path / "set", folders)
    assert [found[name] for name in folders] == expected


@pytest.mark.parametrize(("file", "content", "message"), [
    ("classnames.txt", b"gills\nwoof\n", "names 2 classes, but there are 3 class folders"),
    ("classnames.txt", b"gills\ngills\nmeow", "has the name 'gills' twice"),
    ("classnames.txt", b"gills\naxolotl\nmeow", "'axolotl' is a folder itself"),
    ("classnames.txt", b"gills\ncat house\nmeow", "'cat' is a folder itself"),
    ("classnames.txt", b"gills\nBig dog\nbig  dog", "'big  dog' is a folder itself"),
    ("classnames.txt", b"0 gills\n1. woof\n2 meow", "hold more than names, as '0 gills'"),
    ("classnames.txt", b"axolotl, a\nbig_dog: b\ncat;c", "hold more than names"),
    ("classnames.txt", b'"gills"\n"woof"\n"meow"', "hold more than names"),
    ("Classnames.txt", b"gills\nwoof\nmeow", "is not read. Call it classnames.txt"),
    ("classnames.txt", "caf\u00e9\nwoof\ncafe\u0301".encode(), "are both called"),
    ("classnames.txt", b"cat a\ncat b\naxolotl c\nbig_dog d", "names the folder 'cat' twice"),
    ("classnames.txt", "gills\nl\u00f6we\nmeow".encode("latin-1"), "line 2 holds the byte 0xf6.*iconv"),
    ("classnames.txt", "gills\nwoof\nmeow".encode("utf-16-le"), "NUL"),
    ("dataset.toml", b'tempalte = "a {}."', "Did you mean 'template'"),
    ("dataset.toml", b'template = "a photo"', "has no '{}'"),
    ("dataset.toml", b"template = 3", "not of the right kind.*Write template ="),
    ("dataset.toml", b'template = ["a {}.", 3]', "is not one line of text"),
    ("dataset.toml", b'template = ["a {}.", "a {}."]', "a template twice"),
    ("dataset.toml", b'split = "half"', "split = 'half'"),
    ("dataset.toml", b"split = [1]", "not of the right kind"),
    ("dataset.toml", b'classes = ["a"]', "not of the right kind"),
    ("dataset.toml", b"[classes]\ncat = 3", "is not a name"),
    ("dataset.toml", b'[classes]\ndog = "wolf"', "no such folder"),
    ("dataset.toml", b'[classes]\ncat = "Big Dog"', "are both called 'Big Dog'|are both called 'big dog'"),
    ("dataset.toml", b"template = ", "is not TOML"),
])  # fmt: skip
def test_what_a_file_says_wrong_is_one_sentence(pets, file, content, message):
    pets.joinpath(file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        folder_spec(str(pets))


def test_a_list_of_templates_is_an_ensemble_with_a_byte_order_mark_or_not(pets):
    text = 'template = ["a drawing of a {}.", "a {}."]'
    for encoding in ("utf-8", "utf-8-sig"):
        pets.joinpath("dataset.toml").write_text(text, encoding)
        assert folder_spec(str(pets)).template == "a drawing of a {}.\na {}."
    assert folder_spec(str(pets), template="the {}").template == "the {}"


def lay_out(base, **splits):
    for split, names in splits.items():
        for number, name in enumerate(names):
            picture(base / split / name / "1.png", number)
    return base


@pytest.mark.parametrize("val", ["val", "valid", "Validation", "VAL"])
def test_without_a_test_folder_the_validation_images_are_the_test(tmp_path, val):
    spec = folder_spec(str(lay_out(tmp_path, Train=["a", "b"], **{val: ["a", "b"]})))
    loaded = load(spec)
    assert (len(loaded.split("train")), loaded.val, loaded.test.ids[0]) == (2, None, f"folder/test/{val}/a/1.png")
    assert f"those of {val}" in check_set(spec, ()).message


def test_classes_are_those_of_all_splits_and_never_left_out(tmp_path):
    path = lay_out(tmp_path, train=["a", "b", "c"], test=["a", "b"])
    with pytest.raises(CorruptFile, match=r"class folder .*test/c is missing.*stays a name") as caught:
        load(folder_spec(str(path)))
    assert "emove" not in str(caught.value)
    loaded = load(folder_spec(str(path), problems="exclude"))
    assert (loaded.classes, len(loaded.split("train")), loaded.val, len(loaded.test)) == (("a", "b", "c"), 3, None, 2)
    assert loaded.origin["classes_without_images"] == ["class folder test/c is missing"]


@pytest.mark.parametrize(("splits", "message"), [
    ({"train": ["a", "b"]}, r"training images alone.*folder:.*/train\(split='derived'\)"),
    ({"train": ["a", "b"], "val": ["a", "b"], "valid": ["a", "b"]}, "has both val and valid"),
    ({"train": ["a", "b"], "test": [""]}, "test holds no class folders"),
    ({"a": [""], "b": ["deep"]}, "class folder .*b holds no image; .*deep is a folder among images"),
])  # fmt: skip
def test_other_layouts_say_what_to_do(tmp_path, splits, message):
    with pytest.raises(UserError, match=message):
        load(folder_spec(str(lay_out(tmp_path, **splits))))


def test_folders_beside_the_splits_are_named_and_the_remedy_for_training_images_alone_works(tmp_path):
    path = lay_out(tmp_path / "set", trainval=["a", "b"], test=["a", "b"])
    assert "folders beside the splits, not read: trainval" in check_set(folder_spec(str(path)), ()).message
    path = lay_out(tmp_path / "my (set)", train=["a", "b"])
    for number in range(10):
        for name in ("a", "b"):
            picture(path / "train" / name / f"{number}.png", number)
    with pytest.raises(CorruptFile) as caught:
        folder_spec(str(path))
    (printed,) = shlex.split(caught.value.hint.partition("images: ")[2])
    assert [len(split) for split in load(printed).splits()] == [10, 4, 6]


def test_derived_splits_without_test_images_are_seen_before_a_run(tmp_path):
    for name in ("a/1", "a/2", "a/3", "b/1", "b/2", "b/3"):
        picture(tmp_path / "set" / f"{name}.png")
    finding = check_set(folder_spec(str(tmp_path / "set"), split="derived"), ())
    assert (finding.state, "none is left to test on" in finding.message) == ("incomplete", True)


def test_a_folder_that_is_not_there_or_has_no_classes(tmp_path):
    with pytest.raises(MissingPrerequisite, match="nothing does not exist"):
        DATASETS.get(f"folder:{tmp_path / 'nothing'}")
    picture(tmp_path / "flat" / "1.png")
    with pytest.raises(CorruptFile, match="0 class folders"):
        DATASETS.get(f"folder:{tmp_path / 'flat'}")


@pytest.mark.parametrize("place", ["plain", "with blanks", "my (set)", "it's", 'a "b"', "a\\b", "a,b", "[x]", "x$HOME"])
@pytest.mark.parametrize("form", ["folder:PATH", "folder:PATH(problems='exclude')", "printed"])
def test_a_path_of_any_kind_is_typed_as_it_is_or_as_it_is_printed(pets, place, form):
    path = pets.rename(pets.parent / place)
    if form != "folder:PATH":
        (path / "cat" / "readme.md").write_text("x")
    name = form.replace("PATH", str(path))
    if form == "printed":
        with pytest.raises(CorruptFile, match=r"1 sample problem: .*readme\.md is not an image") as caught:
            load(folder_spec(str(path)))
        (name,) = shlex.split(caught.value.hint.partition("(recorded): ")[2])
        assert shlex.split(excluding(name)) == [name]
    (one, other) = split_list(f"{name},animals")
    assert (one, other, DATASETS.select([one])) == (name, "animals", [DATASETS.get(name).name])
    loaded = load(name)
    assert len(loaded.test) == 30
    assert loaded.origin.get("excluded", []) == ([] if form == "folder:PATH" else ["cat/readme.md is not an image"])


def test_odd_files_are_named_and_can_be_left_out(pets):
    (pets / "cat" / "gone.png").symlink_to(pets / "nowhere.png")
    (pets / "cat" / "sub").mkdir()
    with open(os.fsencode(pets / "cat") + b"/\xe9.png", "wb"):  # noqa: PTH123
        pass
    picture(pets / "beside.png")
    spec = folder_spec(str(pets))
    assert isinstance(spec.digest, str)
    with pytest.raises(CorruptFile) as caught:
        load(spec)
    for said in ("gone.png is a link to nothing", r"\xe9.png is named", "sub is a folder", "beside.png lies beside"):
        assert said in str(caught.value).encode().decode()
    loaded = load(folder_spec(str(pets), problems="exclude"))
    assert (len(loaded.test), len(loaded.origin["excluded"])) == (30, 4)


def test_check_says_what_is_left_out_and_what_is_scaled(pets):
    (pets / "cat" / "0.png").write_bytes(b"<html>")
    Image.fromarray(np.full((8, 8), 999, np.uint16)).save(pets / "cat" / "1.png")
    finding = check_set(folder_spec(str(pets)), (), images=True)
    assert (finding.state, finding.undecodable) == ("incomplete", ("cat/0.png",))
    (name,) = shlex.split(finding.fix.partition("(recorded): ")[2])
    finding = check_set(DATASETS.get(name), (), images=True)
    assert finding.state == "ready" and not finding.fix
    for said in ("1 images cannot be decoded and are left out: cat/0.png (it is none of JPEG", "1 images have 16-bit"):
        assert said in finding.message
    assert len(load(name).test) == 29


@pytest.mark.parametrize("name", [b"\xe9t\xe9", b"lost"])
def test_a_class_folder_that_cannot_be_read_is_refused(pets, name):
    path = os.fsencode(pets) + b"/" + name
    if name == b"lost":
        os.symlink("/nowhere/lost", path)  # noqa: PTH211
    else:
        os.mkdir(path)  # noqa: PTH102
    with pytest.raises(CorruptFile, match=r"\\xe9t\\xe9 is named|lost is a link to nothing"):
        folder_spec(str(pets))


def test_the_name_is_what_was_typed(pets, monkeypatch):
    monkeypatch.chdir(pets.parent)
    assert DATASETS.get("folder:my_pets").name == "folder:my_pets"
    spec = DATASETS.get("folder(path='my_pets', split='derived')")
    assert DATASETS.get(spec.name) is spec
    assert len(load(spec).test) == 9


def contents(loaded):
    return loaded.test.ids, loaded.test.images()[:, 0, 0, 0].tolist()


def test_two_copies_are_one_set_and_a_change_is_another(pets, tmp_path):
    copy = tmp_path / "elsewhere" / "another_name"
    shutil.copytree(pets, copy)
    one, other = folder_spec(str(pets)), folder_spec(str(copy))
    assert counted(one) == counted(other)
    assert contents(load(one)) == contents(load(other))
    picture(copy / "cat" / "new.png")
    assert counted(folder_spec(str(copy))) != counted(one)
    with pytest.raises(CorruptFile, match="has changed since"):
        load(other)


def test_a_new_run_in_the_same_process_looks_at_the_folder_again(pets):
    def planned():
        (name,) = resolve(load_suite("embedded"), RunOptions(datasets=(f"folder:{pets}",))).datasets
        return DATASETS.get(name).digest

    before = planned()
    assert planned() == before
    picture(pets / "cat" / "0.png", 99)
    assert planned() != before


def swap(one, other):
    """Exchanges two files; no size and no time of modification in the folder changes."""
    times = [(path.stat().st_atime_ns, path.stat().st_mtime_ns) for path in (one, other)]
    first, second = one.read_bytes(), other.read_bytes()
    for path, content, time in ((one, second, times[0]), (other, first, times[1])):
        path.write_bytes(content)
        os.utime(path, ns=time)


def test_images_of_one_size_that_change_places_are_another_set(pets, monkeypatch):
    monkeypatch.setattr(digests, "_FRESH_NS", -1)
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path.with_suffix(".bmp"))
        path.unlink()
    before = folder_spec(str(pets))
    ids, reds = contents(load(before))
    swap(pets / "cat" / "0.bmp", pets / "axolotl" / "0.bmp")
    after = folder_spec(str(pets))
    assert counted(after) != counted(before)
    changed = dict(zip(*contents(load(after)), strict=True))
    assert changed["folder/test/cat/0.bmp"] == reds[ids.index("folder/test/axolotl/0.bmp")]


def test_an_unchanged_image_is_not_read_again(pets, monkeypatch):
    monkeypatch.setattr(digests, "_FRESH_NS", -1)
    read = []
    real = digests.file_digest
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path.name) or real(path))
    before = folder_spec(str(pets)).digest
    assert len(read) == 30
    assert folder_spec(str(pets)).digest == before and len(read) == 30
    picture(pets / "cat" / "4.png", 77)
    assert folder_spec(str(pets)).digest != before and read[30:] == ["4.png"]


def test_an_image_that_changed_a_moment_ago_is_always_read(pets, monkeypatch):
    before = folder_spec(str(pets)).digest
    read = []
    monkeypatch.setattr(digests, "file_digest", lambda path: read.append(path) or "0")
    assert folder_spec(str(pets)).digest != before and len(read) == 30


def test_two_lists_of_names_and_an_absent_image_to_leave_out_are_refused(pets):
    with pytest.raises(UserError, match=r"no sample 'my_pets/test/cat/0.png'.*folder/test/axolotl/0.png"):
        load(folder_spec(str(pets), exclude=["my_pets/test/cat/0.png"]))
    pets.joinpath("classnames.txt").write_text("gills\nwoof\nmeow\n")
    pets.joinpath("dataset.toml").write_text('[classes]\ncat = "meow"\n')
    with pytest.raises(CorruptFile, match="Keep one of them"):
        folder_spec(str(pets))
