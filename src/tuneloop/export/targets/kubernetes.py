"""Kubernetes manifests: several copies that update without a failed request, scale by load, and may do little else."""

from __future__ import annotations

from tuneloop.config.protection import SPOOL
from tuneloop.errors import UsageError
from tuneloop.export.targets import docker
from tuneloop.export.targets.contents import CONFIG, DRAIN_S, HOME, STATE, export_id, service_config
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm

MANIFESTS = ("deployment", "service", "autoscaler", "disruption", "network", "account")
START_S = 600  # a large model on a slow disk; until then liveness does not count


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return one file per object, a kustomization that names them, and the configuration as its config map.

    Raises: UsageError: there is no database that several copies could share.
    """
    if not settings.database_url:
        raise UsageError(
            "several copies need one database for keys, log and feedback",
            where="target setting database_url",
            hint="Give database_url=postgresql://USER@HOST/DATABASE, with PGPASSWORD in the secret "
            f"{settings.secret_name!r}.",
        )
    values = {
        "name": settings.slug,
        "title": settings.name,
        "id": export_id(form),
        "image": docker.image_of(form, settings),
        "port": settings.port,
        "replicas": settings.replicas,
        "max_replicas": settings.max_replicas,
        "cpus": f"{settings.cpus:g}",
        "memory": f"{round(settings.memory_gib * 1024)}Mi",
        "gpus": settings.gpus,
        "secret": settings.secret_name,
        "user": docker.USER_ID,
        "home": HOME,
        "state": STATE,
        "spool": f"{HOME}/store/{SPOOL}",
        "config": CONFIG,
        "grace_s": DRAIN_S + 15,
        "start_tries": START_S // 5,
        "database_port": _database_port(settings.database_url),
        "manifests": [f"{manifest}.yaml" for manifest in MANIFESTS],
    }
    written = {
        f"{manifest}.yaml": render(f"kubernetes-{manifest}.yaml.j2", **values)
        for manifest in (*MANIFESTS, "kustomization")
    }
    return {**written, CONFIG: service_config(form, settings)}


def _database_port(url: str) -> int:
    from urllib.parse import urlsplit

    return urlsplit(url).port or 5432
