"""One host with Docker: the service behind a loopback port, restarted when it ends, with nothing it does not need."""

from __future__ import annotations

from tuneloop.config.protection import SPOOL
from tuneloop.export.targets import docker
from tuneloop.export.targets.contents import DRAIN_S, HOME, STATE
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return the files of the image, and a compose file that builds and runs it."""
    compose = render(
        "compose.yaml.j2",
        name=settings.slug,
        image=docker.image_of(form, settings),
        export=str(form.folder.absolute()),
        port=settings.port,
        state=STATE,
        spool=f"{HOME}/store/{SPOOL}",
        cpus=settings.cpus,
        memory=f"{settings.memory_gib:g}g",
        gpus=settings.gpus,
        has_database=bool(settings.database_url),
        grace_s=DRAIN_S + 15,
    )
    return {**docker.files(form, settings), "compose.yaml": compose}
