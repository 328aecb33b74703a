"""What the service finds in an image or on a server: the export where the store expects it, and a configuration.

The export's folder goes to `<root>/artifacts/export/<id>`, read-only; everything that changes is in the database, below
`STATE` and in the store's `SPOOL`, so that the root file system need not be writable.
"""

from __future__ import annotations

import json

from tuneloop.artifacts import MANIFEST
from tuneloop.errors import ArtifactError
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import KIND, ExportedForm

HOME = "/srv/tuneloop"
STATE = "/var/lib/tuneloop"
CONFIG = "tuneloop.yaml"
DRAIN_S = 60  # how long accepted requests may take after SIGTERM; what stops the service waits longer


def export_id(form: ExportedForm) -> str:
    """Return the id of the artifact that a form is in.

    Raises: ArtifactError: the folder is not a whole artifact, which the service would refuse.
    """
    try:
        manifest = json.loads((form.folder / MANIFEST).read_bytes())
        kind, id = manifest["kind"], str(manifest["id"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _not_an_export(form, f"its {MANIFEST} cannot be read ({type(error).__name__})") from error
    if kind != KIND or not id.isalnum():
        raise _not_an_export(form, f"it is an artifact of kind {kind!r} with id {id!r}")
    return id


def store_folder(form: ExportedForm, home: str = HOME) -> str:
    """Return where the form's folder has to be for a store below `home`."""
    return f"{home}/store/artifacts/{KIND}/{export_id(form)}"


def service_config(
    form: ExportedForm, settings: TargetSettings, *, host: str = "0.0.0.0", home: str = HOME, state: str = STATE
) -> str:
    """Return a tuneloop.yaml with which `tuneloop serve` serves this form."""
    return render(
        "tuneloop.yaml.j2",
        name=settings.served_name,
        title=settings.name,
        id=export_id(form),
        form=form.name,
        base_model=form.base_model,
        needs_base=form.name == "adapter",
        max_tokens=settings.max_tokens,
        host=host,
        port=settings.port,
        root=f"{home}/store",
        database=settings.database_url or f"sqlite:///{state}/store.db",
        drain_s=DRAIN_S,
    )


def _not_an_export(form: ExportedForm, found: str) -> ArtifactError:
    return ArtifactError(
        f"this form is not in a store: {found}",
        where=str(form.folder),
        hint="Name an export of this store: `tuneloop export` makes it.",
    )
