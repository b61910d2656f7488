"""Entry point: runs the app and reports an error as one sentence and an exit code."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import typer

from cli.processes import first_process
from cli.terminal.console import note
from cli.terminal.signals import Terminated
from idif.errors import IdifError
from idif.package_names import hidden_package
from idif.visualization.text import json_line

# Typer does not export the base of its usage errors, and newer versions bundle click under another name
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_INTERRUPTED = 130


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _fail(message: str, code: int, arguments: list[str]) -> int:
    note(f"error: {message}")
    if "--json" in arguments and first_process():
        sys.stdout.write(json_line({"error": message, "exit_code": code}))
    return code


def _with_home(argument: str) -> str:
    """``--option=~/x`` and ``~/x`` with the home folder written out, which not every shell does."""
    option, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{Path(value).expanduser()}" if value.startswith(("~/", "~\\")) else argument


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code.

    0 success; 1 a check found a problem or a store is damaged or incomplete; 2 usage error; 3 could not
    finish; 130 and 143 for Ctrl-C and SIGTERM.
    """
    # imported here, since spawned workers import this module again and need neither the commands nor torch
    from cli.main import app

    try:
        result = app(
            args=[_with_home(argument) for argument in arguments], prog_name="idif", standalone_mode=False
        )
        if result == _INTERRUPTED:  # typer takes Ctrl-C for itself and says nothing
            return _fail("interrupted", _INTERRUPTED, arguments)
        return result if isinstance(result, int) else 0
    except typer.Exit as stop:
        return stop.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted", _INTERRUPTED, arguments)
    except Terminated:
        return _fail("terminated", 143, arguments)
    except IdifError as error:
        return _fail(str(error), error.exit_code, arguments)
    except _UsageError as error:
        message: str = error.format_message()  # type: ignore[attr-defined]
        if type(error).__name__ == "NoArgsIsHelpError":  # the help is already printed, or is the message
            sys.stdout.write(message)
            return 2
        return _fail(f"{message} (see --help)", 2, arguments)
    except PermissionError as error:
        return _fail(f"{error.filename}: no permission to read or write it", 2, arguments)
    except MemoryError:
        return _fail("out of memory", 3, arguments)
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            return _fail(f"{error.filename or 'disk'}: no space left", 3, arguments)
        raise
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error):
            return _fail(f"out of memory ({str(error).splitlines()[0]})", 3, arguments)
        raise


def main() -> None:
    """The console script."""
    # Read once, when torch loads GNU's OpenMP. Its threads would otherwise spin for milliseconds after each
    # operation and block the cores for the threads that read the store and compute convolutions
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    signal.signal(signal.SIGTERM, _terminate)
    if (problem := hidden_package()) is not None:
        sys.exit(_fail(problem, 2, sys.argv[1:]))
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
