"""The verb `datasets`: check, prepare and card, on replicas and without a network."""

import json
import shutil
import socket
import zipfile

import pytest

from apd_bench.cli import main
from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.registry import DATASETS
from apd_bench.data import prepare
from apd_bench.data.cards import cards
from apd_bench.data.check import check_set, what_is_missing
from apd_bench.data.prepare import drive_address, fetch_shards, plan_steps
from tests.data import replicas


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder that stands for the web: `fetch` copies the file of the address's last part from it."""
    web = tmp_path / "web"
    web.mkdir()

    def fetch(url, target, **options):
        source = web / url.split("/resolve/main/")[-1] if "/resolve/main/" in url else web / url.rpartition("/")[2]
        if not source.is_file():
            raise MissingPrerequisite(f"{url} cannot be fetched: 404.")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        return target

    monkeypatch.setattr(prepare, "fetch", fetch)
    return web


@pytest.fixture
def eurosat_on_the_web(served, tmp_path, expect):
    card = cards()["eurosat"]
    listed = replicas.write_set(tmp_path / "made", card)
    expect("eurosat", listed)
    split = replicas.write_coop_json(tmp_path / "made", card, listed)
    shutil.copy(split, served / drive_address(card.split_url).rpartition("/")[2])
    with zipfile.ZipFile(served / "EuroSAT.zip", "w") as archive:
        for path in (tmp_path / "made/eurosat/2750").rglob("*.jpg"):
            archive.write(path, path.relative_to(tmp_path / "made/eurosat"))
    return listed


def no_sockets(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def test_prepare_downloads_unpacks_and_checks(root, eurosat_on_the_web, capsys):
    assert main(["datasets", "prepare", "eurosat"]) == 0
    assert "eurosat: ready" in capsys.readouterr().out
    assert not (root / "eurosat/EuroSAT.zip").exists()
    assert main(["datasets", "check", "eurosat"]) == 0
    assert main(["datasets", "prepare", "eurosat"]) == 0
    assert capsys.readouterr().out.endswith("eurosat: ready\n")


def test_prepare_goes_on_where_it_stopped(root, eurosat_on_the_web, served):
    split = served / drive_address(cards()["eurosat"].split_url).rpartition("/")[2]
    hidden = split.rename(served / "hidden")
    assert main(["datasets", "prepare", "eurosat"]) == 2
    hidden.rename(split)
    (served / "EuroSAT.zip").unlink()
    assert main(["datasets", "prepare", "eurosat"]) == 0


def test_offline_opens_no_socket_and_says_the_steps(root, monkeypatch, capsys):
    no_sockets(monkeypatch)
    assert main(["datasets", "prepare", "eurosat", "ucf101", "stanford_cars", "--offline"]) == 2
    said = capsys.readouterr().out
    assert "EuroSAT.zip" in said and "split_zhou_EuroSAT.json" in said
    assert "by hand: Download UCF-101-midframes.zip" in said
    assert main(["datasets", "prepare", "stanford_cars", "--layout", "webdataset", "--offline"]) == 2
    assert "clip-benchmark/wds_cars" in capsys.readouterr().out


@pytest.mark.parametrize("card", cards().values(), ids=lambda card: card.name)
def test_every_set_has_steps(card, root):
    steps = plan_steps(card, root)
    assert steps and not any(step.done for step in steps)
    assert all(step.url.startswith("http") or step.text == card.manual for step in steps)


def test_a_split_file_with_other_counts_is_refused(root, eurosat_on_the_web, expect):
    card = expect("eurosat", {**eurosat_on_the_web, "test": []})
    step = next(step for step in plan_steps(card, root) if step.url and step.download is None)
    with pytest.raises(CorruptFile, match="samples instead of"):
        prepare.carry_out(card, step)
    assert not list((root / "eurosat").iterdir())


def test_shards_are_fetched_once(root, served, tmp_path, monkeypatch):
    card = cards()["imagenet_a"]
    items = [(f"{n}", n) for n in range(200)]
    replicas.write_shards(tmp_path / "made", "copy", {"test": items}, {f"{n}": n for n in range(200)}, card.classes, 90)
    shutil.copytree(tmp_path / "made/copy", served, dirs_exist_ok=True)
    folder = fetch_shards(card, root)
    assert folder == root / "wds_imagenet-a"
    assert sorted(path.name for path in (folder / "test").iterdir()) == ["0.tar", "1.tar", "2.tar", "nshards.txt"]
    shutil.rmtree(served)
    assert fetch_shards(card, root) == folder


def test_google_drive_links_become_downloads():
    assert drive_address("https://drive.google.com/file/d/abc123/view") == (
        "https://drive.google.com/uc?export=download&id=abc123"
    )
    assert drive_address("https://example.org/x.json") == "https://example.org/x.json"


def test_check_tells_the_states_apart_and_a_plan_learns_it(root, expect):
    spec, card = DATASETS.get("dtd"), cards()["dtd"]

    def look(**options):
        finding, missing = check_set(spec, (root,), **options), what_is_missing(spec)
        assert options or (missing is None) == (finding.state == "ready")
        return finding, str(missing)

    finding, missing = look()
    assert finding.state == "absent" and "not on this machine" in missing
    listed = replicas.write_set(root, card)
    expect("dtd", listed)
    finding, missing = look()
    assert (finding.state, finding.layout) == ("no official split", "coop")
    for said in (finding.message, missing):
        assert "official split split_zhou_DescribableTextures.json is not" in said
    replicas.write_coop_json(root, card, listed)
    finding, _ = look()
    assert (finding.state, finding.counts) == ("ready", {"train": 94, "val": 47, "test": 47})
    broken = root / "dtd/images" / listed["test"][2][0]
    broken.write_bytes(b"")
    assert look()[0].state == "ready"
    finding, _ = look(images=True)
    assert (finding.state, finding.undecodable) == ("incomplete", (listed["test"][2][0],))
    broken.unlink()
    finding, missing = look()
    assert finding.state == "incomplete" and "problems='exclude'" in finding.fix and f"{broken} is missing" in missing
    shutil.rmtree(root / "dtd/images")
    numbers = {path: 0 for path, _ in listed["test"]}
    replicas.write_shards(root, card.shards[0], {"test": listed["test"]}, numbers, card.classes)
    assert "only webdataset shards" in look()[1]
    assert what_is_missing(DATASETS.get("animals")) is None


def test_check_of_everything_is_information_of_one_set_a_verdict(root, capsys):
    assert main(["datasets", "check"]) == 0
    assert "absent: imagenet, caltech101" in capsys.readouterr().out
    assert main(["datasets", "check", "dtd"]) == 2
    assert "to mend it:" in capsys.readouterr().out
    assert main(["datasets", "check", "dtd,eurosat", "--json"]) == 2
    assert [item["name"] for item in json.loads(capsys.readouterr().out)] == ["dtd", "eurosat"]
    assert main(["datasets", "list", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(DATASETS.names())
    assert main(["datasets", "chek"]) == 2
    assert "'list', 'check', 'prepare', 'card'" in capsys.readouterr().err


def test_a_card_shows_names_template_and_citation(capsys):
    assert main(["datasets", "card", "pets"]) == 0
    said = capsys.readouterr().out
    assert "a photo of a {}, a type of pet." in said and "Parkhi" in said and "abyssinian" in said
