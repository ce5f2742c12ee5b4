"""Files of repositories on the Hugging Face hub, down and up; offline, no socket is opened. Imports no torch."""

import os
from collections.abc import Mapping
from pathlib import Path

from apd_bench.core.errors import MissingPrerequisite, first_line


def offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE or APD_BENCH_OFFLINE)."""
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "APD_BENCH_OFFLINE")
    )


def forbid_network() -> None:
    """Tells the hub client, which reads its environment once at import, that the network is switched off."""
    if offline():
        from huggingface_hub import constants

        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True


def hub_file(repository: str, names: tuple[str, ...], revision: str | None = None) -> Path:
    """The first of `names` in a hub repository, from the cache or (unless offline) downloaded.

    Raises MissingPrerequisite with the way to get it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision, local_files_only=offline()))
        except (LocalEntryNotFoundError, EntryNotFoundError):
            continue
        except _failures() as error:
            raise MissingPrerequisite(
                f"{repository} cannot be reached: {type(error).__name__}: {first_line(error)}",
                hint=f"Check the name and the network, or download it elsewhere: hf download {repository}",
            ) from error
    state = "is not in the local cache and the network is switched off" if offline() else "could not be downloaded"
    raise MissingPrerequisite(
        f"{' or '.join(names)} of {repository} {state}.",
        hint=f"On a machine with network run: hf download {repository}  (HF_HOME names the cache folder).",
    )


def upload(repository: str, files: Mapping[str, bytes], message: str, *, private: bool = False) -> str:
    """Puts `files` by name into a repository as one commit, making it where it is not there, and returns its address.

    Raises MissingPrerequisite when the hub cannot be reached, or does not let this user write there.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if offline():
        raise MissingPrerequisite(f"Nothing is sent to {repository}: the network is switched off.")
    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, content) for name, content in files.items()]
        return str(api.create_commit(repository, operations, commit_message=message).commit_url)
    except _failures() as error:
        raise MissingPrerequisite(
            f"{repository} does not take the files: {type(error).__name__}: {first_line(error)}",
            hint="Check the name, and that you may write there: hf auth login",
        ) from error


def _failures() -> tuple[type[BaseException], ...]:
    """What the hub client raises: for a refusal, a name, a disk, and whatever its HTTP library (a base) does."""
    from huggingface_hub.errors import HfHubHTTPError

    return (*HfHubHTTPError.__bases__, OSError, ValueError)
