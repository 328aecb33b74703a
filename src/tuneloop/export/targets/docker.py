"""An image of the service with one exported form in it: multi-stage, not root, with a health check."""

from __future__ import annotations

from tuneloop.config.protection import SPOOL
from tuneloop.export.targets.contents import CONFIG, HOME, STATE, export_id, service_config, store_folder
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm

USER_ID = 10001
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"  # torch without CUDA: 200 MB instead of 3 GB


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return Dockerfile, configuration, and the command that builds the image.

    The export stays out of the folder: it is a second build context, so nothing is copied twice.
    """
    return {
        "Dockerfile": dockerfile(form, settings),
        CONFIG: service_config(form, settings),
        "build.sh": render("build.sh.j2", image=image_of(form, settings), export=str(form.folder.absolute())),
    }


def dockerfile(form: ExportedForm, settings: TargetSettings) -> str:
    """Return the Dockerfile."""
    return render(
        "Dockerfile.j2",
        title=settings.name,
        package=settings.package,
        python=settings.python_version,
        wheels="" if settings.gpus else CPU_WHEELS,
        home=HOME,
        state=STATE,
        spool=f"{HOME}/store/{SPOOL}",
        export_folder=store_folder(form),
        port=settings.port,
        user=USER_ID,
    )


def image_of(form: ExportedForm, settings: TargetSettings) -> str:
    """Return the image's name: the one that is set, or one that names model and export."""
    return settings.image or f"{settings.slug}:{export_id(form)[:12]}"
