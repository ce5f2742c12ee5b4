"""Prompt states go to the hub and come back through its own client; a folder behind a local server plays the hub."""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub.constants as hub
import pytest
import torch

import apd_bench
from apd_bench.cli import main
from apd_bench.core.errors import EXIT_DONE, EXIT_USAGE, CorruptFile, MissingPrerequisite, UsageError
from apd_bench.core.registry import METHODS
from apd_bench.methods.catalog import pull
from apd_bench.training.prompt_states import PromptState, load_state, save_state
from apd_bench.training.sharing import backbone_of, push

NAME = "hf://me/apd-food"


class Hub(BaseHTTPRequestHandler):
    """What the hub's client asks for: repositories are folders, each with one folder a commit, newest last."""

    root: Path
    address: str

    def log_message(self, *words):
        pass

    def answer(self, code, content=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != "Bearer hf_test":
            return self.answer(401, b"{}")
        if self.path == "/api/validate-yaml":
            return self.answer(200, b"{}")
        if self.path == "/api/repos/create":
            data = json.loads(body)
            (self.root / data["organization"] / data["name"]).mkdir(parents=True, exist_ok=True)
            return self.answer(200, json.dumps({"url": f"{self.address}/me/{data['name']}"}).encode())
        _, _, _, owner, name, action, _ = self.path.split("/")
        if action == "preupload":
            how = {"uploadMode": "regular", "shouldIgnore": False}
            files = [{"path": item["path"], **how} for item in json.loads(body)["files"]]
            return self.answer(200, json.dumps({"files": files}).encode())
        lines = [json.loads(line) for line in body.splitlines()]
        repository = self.root / owner / name
        commit = repository / hashlib.sha1(body).hexdigest()  # noqa: S324  (as git names commits)
        commit.mkdir(exist_ok=True)
        for line in lines:
            if line["key"] == "file":
                (commit / line["value"]["path"]).write_bytes(base64.b64decode(line["value"]["content"]))
        (repository / "main").write_text(commit.name)
        made = {"commitUrl": f"{self.address}/{owner}/{name}/commit/{commit.name}", "commitOid": commit.name}
        return self.answer(200, json.dumps(made).encode())

    def do_GET(self):
        if self.path.startswith("/api/"):
            return self.answer(404)
        _, owner, name, _, revision, *rest = unquote(self.path).split("/")
        repository = self.root / owner / name
        if not (repository / "main").exists():
            return self.answer(404, X_Error_Code="RepoNotFound")
        commit = (repository / "main").read_text() if revision == "main" else revision
        file = repository / commit / "/".join(rest)
        if not file.is_file():
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = file.read_bytes()
        return self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=commit)

    do_HEAD = do_GET


@pytest.fixture
def repositories(tmp_path, monkeypatch):
    """The folder that plays the hub, for this process a network with a hub in it."""
    Hub.root = tmp_path / "hub"
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    address = Hub.address = f"http://127.0.0.1:{server.server_port}"
    url = address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in (("HF_HUB_OFFLINE", False), ("ENDPOINT", address), ("HF_HUB_CACHE", str(tmp_path / "cache")),
                        ("HUGGINGFACE_CO_URL_TEMPLATE", url)):  # fmt: skip
        monkeypatch.setattr(hub, name, value)
    yield Hub.root
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharing") / "results"
    apd_bench.run(
        methods="coop", datasets="food", attacks="none", limit=4, shots=1, settings=["training.epochs=1"],
        no_reference=True, results=folder, device="cpu",
    )  # fmt: skip
    return folder


def first_state(store):
    return load_state(next(path for path in (store / "fits").iterdir() if path.is_dir()))


def test_what_is_pushed_is_pulled_and_measured_by_its_address(store, repositories, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    record = apd_bench.load_records(store)[0]
    assert main(["push", record.id, NAME, "--results", str(store)]) == EXIT_DONE
    assert f"--methods {NAME}" in capsys.readouterr().out
    commit = repositories / "me" / "apd-food" / (repositories / "me" / "apd-food" / "main").read_text()
    assert {path.name for path in commit.iterdir()} == {"README.md", "card.json", "state.safetensors"}
    assert "coop" in (commit / "README.md").read_text()
    (commit / "setup.py").write_text("raise SystemError")  # nothing but card and tensors is fetched
    folder = pull(NAME)
    assert {path.name for path in folder.iterdir()} == {"card.json", "state.safetensors"}
    assert load_state(folder).digest == first_state(store).digest
    x = torch.rand(2, 3, 40, 40)
    shared = apd_bench.load_classifier(NAME, "food")
    assert torch.equal(shared(x), apd_bench.load_classifier(record, results=store)(x))
    words = ["--datasets", "food", "--attacks", "none", "--limit", "4", "--no-reference", "--device", "cpu", "-q"]
    assert main(["run", "--methods", f"{NAME}@{commit.name}", *words]) == EXIT_DONE
    again = apd_bench.load_records("results")[0]
    assert again.cell.fit.method.name.startswith("coop@") and again.metrics == record.metrics
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # and once more from the cache
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert pull(NAME) == folder
    with pytest.raises(MissingPrerequisite, match="the network is switched off"):
        push(first_state(store), NAME)


def test_a_state_that_was_changed_on_the_hub_is_refused(store, repositories, tmp_path):
    state = first_state(store)
    push(state, NAME)
    commit = repositories / "me" / "apd-food" / (repositories / "me" / "apd-food" / "main").read_text()
    save_state(tmp_path / "other", PromptState({name: value + 1 for name, value in state.state.items()}, state.card))
    shutil.copy(tmp_path / "other" / "state.safetensors", commit)
    with pytest.raises(CorruptFile, match="do not have the digest on their card"):
        apd_bench.load_classifier(NAME, "food")
    (commit / "card.json").write_text("[]")
    shutil.rmtree(hub.HF_HUB_CACHE)
    with pytest.raises(CorruptFile, match="is not a prompt state"):
        METHODS.get(NAME)


@pytest.mark.parametrize(("name", "said"), [
    ("hf://me", "Write hf://ORG/REPO"), ("hf://me/a/b", "Write hf://ORG/REPO"),
    ("hf://me/nothing", "me/nothing cannot be reached"),
])  # fmt: skip
def test_what_is_not_on_the_hub_is_one_sentence(name, said, repositories, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = main(["run", "--methods", name, "--dry-run"])
    err = capsys.readouterr().err
    assert code == EXIT_USAGE and said in err and err.count("\n") == 1


def test_who_may_not_write_is_told_to_log_in(store, repositories, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(MissingPrerequisite, match="hf auth login"):
        push(first_state(store), NAME)
    monkeypatch.setattr(hub, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(MissingPrerequisite, match="does not take the files: ConnectError"):
        push(first_state(store), NAME)
    with pytest.raises(UsageError, match="Leave out '@v1'"):
        push(first_state(store), f"{NAME}@v1")


def test_a_backbone_of_a_local_file_is_named_as_it_is_typed(store):
    state = first_state(store)
    assert backbone_of(state) == "tiny-clean"
    card = state.card | {"backbone": {"name": "local-robust", "architecture": "ViT-B-32"}}
    assert backbone_of(PromptState(state.state, card)) == "local-robust:FILE@ViT-B-32"
