"""Upload to the Hugging Face Hub: private unless asked otherwise, and laid out so that `from_pretrained` finds it.

The weights' folder becomes the repository's root; what tuneloop needs beside them lies there too. The artifact's
manifest stays here: it names folders of this machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneloop.artifacts import MANIFEST
from tuneloop.errors import NetworkError, UsageError
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm

RECORD = "hub.json"
HINT_TOKEN = "Check the network, and that HF_TOKEN may write there (`hf auth login`)."


def paths(form: ExportedForm) -> dict[str, Path]:
    """Return the name in the repository → file here, of everything that is uploaded, by name.

    Raises: UsageError: two files would have the same name.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for path in form.folder.rglob("*") if path.is_file()):
        inside = form.path.is_dir() and path.is_relative_to(form.path)
        name = path.relative_to(form.path if inside else form.folder).as_posix()
        if name == MANIFEST or name.startswith("."):
            continue
        if name in found and found[name].read_bytes() != path.read_bytes():
            if path.name == "README.md":  # PEFT and the exporter write one each; ours is the model card
                found[name] = form.folder / "README.md"
                continue
            raise UsageError(
                f"{name} is there twice, in the form's folder and beside its weights",
                where=str(form.folder),
                hint="Export the form again.",
            )
        found[name] = path
    return dict(sorted(found.items()))


def listing(form: ExportedForm) -> dict[str, int]:
    """Return the name and size in bytes of every file that an upload would send."""
    return {name: path.stat().st_size for name, path in paths(form).items()}


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Upload the form, and return a record of what went where as `hub.json`.

    Raises: as `upload`.
    """
    record = upload(form, settings.repo, public=settings.public)
    return {RECORD: json.dumps(record, indent=1, sort_keys=True) + "\n"}


def upload(
    form: ExportedForm, repo: str, *, public: bool = False, endpoint: str | None = None, token: str | None = None
) -> dict[str, Any]:
    """Upload a form to the repository `repo` (OWNER/NAME, made where it is not there) and return what became of it.

    Args: endpoint, token: default to what huggingface_hub finds (HF_ENDPOINT, HF_TOKEN, `hf auth login`).
    Raises: UsageError: the name cannot be a repository, or it is public already and should not be; NetworkError: the
        Hub cannot be reached or refuses.
    """
    from httpx import HTTPError
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    if repo.count("/") != 1:
        raise UsageError(f"{repo!r} is not OWNER/NAME", where="target setting repo", hint="Give repo=OWNER/NAME.")
    api = HfApi(endpoint=endpoint, token=token)
    operations = [CommitOperationAdd(name, str(path)) for name, path in paths(form).items()]
    try:
        address = api.create_repo(repo, private=not public, exist_ok=True)
        if not public and not api.model_info(repo).private:
            raise UsageError(
                "this repository is public already, and what is uploaded would be too",
                where=repo,
                hint="Name another one, make it private on the Hub, or give public=true.",
            )
        message = f"Upload {form.name} of run {form.run_id}"
        commit = api.create_commit(repo, operations, commit_message=message)
    except HFValidationError as error:
        raise UsageError(str(error), where=repo, hint="Give repo=OWNER/NAME.") from error
    except (HfHubHTTPError, LocalTokenNotFoundError, HTTPError, OSError) as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise NetworkError(f"the upload failed: {first_line}", where=repo, hint=HINT_TOKEN) from error
    return {
        "repo": repo,
        "url": str(address),
        "commit": commit.oid,
        "private": not public,
        "form": form.name,
        "run": form.run_id,
        "files": listing(form),
    }
