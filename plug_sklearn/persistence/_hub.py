"""Upload artifacts to the Hugging Face hub, and download them."""

import re
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from huggingface_hub import CommitOperationAdd, HfApi, hf_hub_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from sklearn.base import BaseEstimator

from plug_sklearn._hub_access import is_hub_reachable
from plug_sklearn._packages import list_versions
from plug_sklearn.evaluation import CrossValidationReport
from plug_sklearn.persistence._card import CARD, REPOSITORY, check_card, write_card

SCHEME = "hf://"
#: Default name of the files, without suffixes.
NAME = "probe"
_ADDRESS = re.compile(
    rf"hf://(?P<repository>{REPOSITORY})(@(?P<revision>[^/@]+))?(/(?P<name>.+))?"
)
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")


def upload(
    estimator: BaseEstimator,
    repo_id: str,
    save: Any,  # noqa: ANN401 - save_artifacts
    *,
    name: str,
    card: CrossValidationReport | None,
    revision: str | None,
    private: bool | None,
    token: str | None,
    commit_message: str | None,
) -> str:
    """Upload the files of an estimator in one commit, and return their address."""
    owner = "push_to_hub"
    check_card(card, owner)
    for parameter, value, pattern in (
        ("repo_id", repo_id, re.compile(REPOSITORY)),
        ("name", name, _NAME),
    ):
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            expected = "'owner/name'" if parameter == "repo_id" else "a file's name"
            raise ValueError(
                f"The {parameter!r} parameter of {owner} must be {expected}. Got "
                f"{value!r} instead."
            )
    api = HfApi(
        token=token,
        library_name="plug_sklearn",
        library_version=list_versions().get("plug_sklearn"),
    )
    with tempfile.TemporaryDirectory() as folder:
        # An estimator that cannot be saved is refused before a repository is made.
        files = save(estimator, Path(folder) / NAME)
        api.create_repo(repo_id, private=private, exist_ok=True)
        operations = [
            CommitOperationAdd(f"{name}{file.suffix}", file.read_bytes())
            for file in files
        ]
        if card is not None or not api.file_exists(repo_id, CARD, revision=revision):
            source = f"{SCHEME}{repo_id}" + ("" if name == NAME else f"/{name}")
            text = write_card(estimator, card, source)
            operations.append(CommitOperationAdd(CARD, text.encode()))
        commit = api.create_commit(
            repo_id,
            operations,
            commit_message=commit_message or f"Add {name}",
            revision=revision,
        )
    place = "" if name == NAME else f"/{name}"
    return f"{SCHEME}{repo_id}@{quote(commit.oid, safe='')}{place}"


def download(address: str) -> Path:
    """Download the two files of an artifact, and return their path without suffix.

    Both come from the same commit. They are kept in the hub's cache.
    """
    found = _ADDRESS.fullmatch(address)
    places = re.split(r"[/\\]", unquote(found["name"] or NAME)) if found else []
    revision = None
    if found and found["revision"] is not None:
        revision = unquote(found["revision"])
        places += re.split(r"[/\\]", revision)
    # A name without a part, or with one that leads upwards, is of no repository.
    if found is None or {"", ".", ".."} & set(places):
        raise ValueError(
            "The 'path' parameter of load_artifacts must be 'hf://owner/name', "
            "'hf://owner/name@revision', or one of these followed by "
            f"'/name-of-the-files'. Got {address!r} instead."
        )
    name = re.sub(r"\.(json|safetensors)$", "", found["name"] or NAME)
    description = _fetch(address, found["repository"], f"{name}.json", revision)
    commit = re.search(r"snapshots[/\\]([^/\\]+)[/\\]", str(description))
    pinned = revision if commit is None else commit.group(1)
    _fetch(address, found["repository"], f"{name}.safetensors", pinned)
    return description.with_suffix("")


def _fetch(address: str, repository: str, file: str, revision: str | None) -> Path:
    try:
        return Path(
            hf_hub_download(
                repository,
                file,
                revision=revision,
                library_name="plug_sklearn",
                library_version=list_versions().get("plug_sklearn"),
                local_files_only=not is_hub_reachable(),
            )
        )
    except RemoteEntryNotFoundError as error:
        raise FileNotFoundError(f"There is no {file} in {address!r}.") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise FileNotFoundError(
            f"The hub has no repository or revision {address!r}, or it is private and "
            "you are not logged in, with 'hf auth login', as a user who may read it."
        ) from error
    except HFValidationError as error:
        raise ValueError(
            f"The 'path' parameter of load_artifacts is not an address: {error}."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise FileNotFoundError(
            f"{file} of {address!r} could not be downloaded: the hub cannot be "
            "reached, and the file is not in the cache on this machine."
        ) from error
