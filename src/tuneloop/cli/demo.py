"""`tuneloop demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli import options

EPILOG = options.example("tuneloop demo", "tuneloop demo --folder /tmp/tuneloop-demo")


def demo(
    folder: Annotated[
        Path, typer.Option("--folder", "-f", metavar="PATH", help="Where data, configuration and results go.")
    ] = Path("demo"),
    as_json: options.Json = False,
) -> None:
    """Turn open licence documents into a proven model: data, training, evaluation, report; about ten minutes on a CPU.

    What is done already is not done again: the second time takes seconds.
    """
    import sys

    from tuneloop.cli.evaluate import report_path, verdict_and_table
    from tuneloop.cli.render import print_result, progress_on
    from tuneloop.cli.session import STORE_ROOT
    from tuneloop.demo.run import CONFIG, run_demo

    STORE_ROOT.set(folder / ".tuneloop")
    results = run_demo(folder, progress_on(sys.stderr))
    evaluation = results["evaluate"].artifact
    data = {
        "folder": str(folder),
        "stages": {
            name: {"id": result.artifact.id, "skipped": result.is_skipped, "summary": dict(result.artifact.summary)}
            for name, result in results.items()
        },
        "report": str(report_path(evaluation)),
    }
    configured = f"--config {folder / CONFIG}"
    example = "This program is free software: you can redistribute it under the terms of the GNU GPL version 3."
    follow = ["", f'Next: tuneloop predict {configured} "{example}"', f"      tuneloop lineage {configured}"]
    print_result(data, [*verdict_and_table(evaluation), *follow], as_json=as_json)
