"""The `tuneloop` program: its commands, and how each way of ending becomes an exit code.

Importing this costs no room: every command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextvars import copy_context
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tuneloop import __version__
from tuneloop.cli import (
    blind,
    calibrate,
    compare,
    config,
    data,
    demo,
    deploy,
    doctor,
    environment,
    evaluate,
    export,
    gate,
    init,
    judge,
    keys,
    lineage,
    parity,
    predict,
    requests,
    serve,
    train,
)
from tuneloop.cli.endings import explain, interrupted
from tuneloop.cli.options import example
from tuneloop.errors import TuneloopError

# What libraries print on their own accord; TUNELOOP_DEBUG=1 lets them.
QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONWARNINGS": "ignore",
}

# The order of `tuneloop --help`: a model's life. A command that is missing here comes last.
ORDER = [
    "demo",
    "init",
    "doctor",
    "data",
    "train",
    "calibrate",
    "evaluate",
    "compare",
    "gate",
    "judge",
    "blind",
    "export",
    "parity",
    "deploy",
    "predict",
    "serve",
    "keys",
    "requests",
    "environment",
    "lineage",
    "config",
]


class InOrder(TyperGroup):
    """Lists commands by `ORDER` instead of plain commands first and groups after them."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return sorted(self.commands, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    name="tuneloop",
    help="Turn your own documents into a small language model that is proven to do one job well.",
    epilog=example("tuneloop demo", "tuneloop init --data contracts.parquet", "tuneloop train train.lora.r=32"),
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        print(f"tuneloop {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command("demo", epilog=demo.EPILOG, short_help="See it all work on open data.")(demo.demo)
app.command("init", epilog=init.EPILOG, short_help="Write a configuration from a data file.")(init.init)
app.command("doctor", epilog=doctor.EPILOG, short_help="Check this machine and the configuration.")(doctor.doctor)
app.add_typer(data.app, name="data")
app.command("train", epilog=train.EPILOG, short_help="Fine-tune the base model.")(train.train)
app.command("calibrate", epilog=calibrate.EPILOG, short_help="Make probabilities honest, and choose what is accepted.")(
    calibrate.calibrate
)
app.command("evaluate", epilog=evaluate.EPILOG, short_help="Prove (or not) that it got better.")(evaluate.evaluate)
app.command("compare", epilog=compare.EPILOG, short_help="Let any models answer the same documents.")(compare.compare)
app.command("gate", epilog=gate.EPILOG, short_help="Decide whether a candidate may replace the champion.")(gate.gate)
app.command("judge", epilog=judge.EPILOG, short_help="Let a model compare or rate answers.")(judge.judge)
app.add_typer(blind.app, name="blind")
app.command("export", epilog=export.EPILOG, short_help="Write the model in forms that others can use.")(export.export)
app.command("parity", epilog=parity.EPILOG, short_help="Check that forms, engines and services answer alike.")(
    parity.parity
)
app.command("deploy", epilog=deploy.EPILOG, short_help="Write what an export needs to run elsewhere.")(deploy.deploy)
app.command("predict", epilog=predict.EPILOG, short_help="Answer new documents.")(predict.predict)
app.add_typer(keys.app, name="keys")
app.add_typer(requests.app, name="requests")
app.add_typer(environment.app, name="environment")
app.command("serve", epilog=serve.EPILOG, short_help="Answer over HTTP.")(serve.serve)
app.command("lineage", epilog=lineage.EPILOG, short_help="Show what an artifact was made from.")(lineage.lineage)
app.add_typer(config.app, name="config")


def main() -> None:
    """Run the command in `sys.argv` and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 usage, 3 data, 4 gate refused, 130/143 stopped.

    What a command notes in context variables ends with it.
    """
    return copy_context().run(_run, arguments)


def _run(arguments: Sequence[str]) -> int:
    _quiet_libraries()
    received = _note_signals()
    command = typer.main.get_command(app)
    try:
        with command.make_context("tuneloop", list(arguments)) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        return done.exit_code
    except BaseException as error:  # a panic in Rust code is no Exception
        if received or isinstance(error, KeyboardInterrupt):
            return _report(interrupted(received[0] if received else signal.SIGINT), arguments)
        if isinstance(error, BrokenPipeError):
            _forget_stdout()
            return 0
        if not isinstance(error, Exception):
            raise
        return _report(explain(error, arguments), arguments)
    return 0


def _forget_stdout() -> None:
    from tuneloop.cli.render import forget_stdout

    forget_stdout()


def _note_signals() -> list[int]:
    """Let Ctrl-C and SIGTERM raise KeyboardInterrupt where the program stands, and return where they are noted.

    The note outlives the exception: a library may swallow that halfway through an import or a callback (Python does in
    `__del__`), and end some steps later in an exception that tells nothing of a signal.
    """
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell starts what runs behind it (`&`) like that
        signal.signal(signal.SIGINT, stop)
    return received


def _quiet_libraries() -> None:
    if os.environ.get("TUNELOOP_DEBUG"):
        return
    import warnings

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    warnings.simplefilter("ignore")


def _report(error: TuneloopError, arguments: Sequence[str]) -> int:
    from tuneloop.cli.render import print_error

    print_error(error, as_json="--json" in arguments)
    return error.exit_code
