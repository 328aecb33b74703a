"""A script for Modal: the service with the export in its image, scaled to zero when nobody asks."""

from __future__ import annotations

from tuneloop.errors import UsageError
from tuneloop.export.targets.contents import CONFIG, HOME, service_config, store_folder
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm

SCRIPT = "modal_app.py"


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return the script and the configuration beside it.

    Raises: UsageError: there is no database, which containers that come and go need for keys and log.
    """
    if not settings.database_url:
        raise UsageError(
            "Modal's containers keep nothing, so keys and log need a database",
            where="target setting database_url",
            hint="Give database_url=postgresql://USER@HOST/DATABASE, with PGPASSWORD in the Modal secret "
            f"{settings.secret_name!r}.",
        )
    script = render(
        "modal_app.py.j2",
        title=settings.name,
        name=settings.slug,
        package=settings.package,
        python=settings.python_version,
        export=str(form.folder.absolute()),
        export_folder=store_folder(form),
        config=CONFIG,
        config_path=f"{HOME}/{CONFIG}",
        secret=settings.secret_name,
        port=settings.port,
        gpu=_gpu(settings),
        cpus=settings.cpus,
        memory_mib=round(settings.memory_gib * 1024),
        max_replicas=settings.max_replicas,
    )
    return {SCRIPT: script, CONFIG: service_config(form, settings)}


def _gpu(settings: TargetSettings) -> str | None:
    if not settings.gpus:
        return None
    return settings.gpu_type if settings.gpus == 1 else f"{settings.gpu_type}:{settings.gpus}"
