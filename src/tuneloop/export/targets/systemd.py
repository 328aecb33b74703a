"""A systemd unit for one machine: loopback, a user of its own, and as little of the system as a model needs."""

from __future__ import annotations

from tuneloop.config.protection import SPOOL
from tuneloop.export.targets.contents import CONFIG, DRAIN_S, export_id, service_config
from tuneloop.export.targets.escape import render
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import KIND, ExportedForm


def files(form: ExportedForm, settings: TargetSettings) -> dict[str, str]:
    """Return unit, configuration, and a script that puts them and the export in place."""
    unit, home, state = f"{settings.slug}.service", f"/srv/{settings.slug}", f"/var/lib/{settings.slug}"
    values = {
        "title": settings.name,
        "name": settings.slug,
        "unit": unit,
        "program": settings.program,
        "config": CONFIG,
        "config_path": f"{home}/{CONFIG}",
        "home": home,
        "spool": SPOOL,
        "export": str(form.folder.absolute()),
        "export_folder": f"{home}/store/artifacts/{KIND}/{export_id(form)}",
        "memory": f"{round(settings.memory_gib * 1024)}M",
        "cpu_percent": round(settings.cpus * 100),
        "gpus": settings.gpus,
        "grace_s": DRAIN_S + 15,
    }
    return {
        unit: render("service.j2", **values),
        CONFIG: service_config(form, settings, host="127.0.0.1", home=home, state=state),
        "install.sh": render("install.sh.j2", **values),
    }
