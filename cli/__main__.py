"""Entry point: runs the app and reports an error as one sentence and an exit code."""

from cli.terminal import signals

if __name__ == "__main__":
    signals.listen()


import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from cli.processes import first_process
from cli.terminal.console import note, write_json_line
from cli.terminal.signals import Terminated
from idif.errors import IdifError
from idif.files import write_failed
from idif.package_names import hidden_package

# Typer does not export the base of its usage errors, and newer versions bundle click under another name
_UsageError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

_INTERRUPTED, _PIPE_CLOSED = 130, 141
_DISK = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EROFS)
_NO_MEMORY = (
    "allocate memory",
    "not enough memory",
    "Insufficient memory",
    "std::bad_alloc",
    "can't start new thread",
    "failed to map segment",
)
"""Words of libraries that cannot allocate."""
_PEER_LOST = ("closed by peer", "Connection reset", "Connection refused", "Broken pipe", "NCCL")
"""Words of torch's communication between processes, one of which is gone."""


def _fail(message: str, code: int, arguments: list[str]) -> int:
    note(f"error: {message}")
    if "--json" in arguments and first_process():
        try:
            write_json_line({"error": message, "exit_code": code})
            sys.stdout.flush()
        except OSError:  # the output may be what has failed
            _drop_output()
    return code


def _with_home(argument: str) -> str:
    """``--option=~/x`` and ``~/x`` with the home folder written out, which not every shell does."""
    option, equals, value = argument.rpartition("=") if argument.startswith("--") else ("", "", argument)
    return f"{option}{equals}{Path(value).expanduser()}" if value.startswith(("~/", "~\\")) else argument


def run(arguments: list[str]) -> int:
    """Run one command line; returns its exit code.

    The output is written when this returns. 0 success; 1 a check found a problem or a store is damaged or
    incomplete; 2 usage error; 3 could not finish; 130 and 143 for Ctrl-C and SIGTERM; 141
    nobody reads the output.
    """
    code = 0
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()
        return _PIPE_CLOSED
    except OSError as error:
        _drop_output()
        return code or _fail(str(write_failed(Path("the output"), error)), 3, [])
    return code


def _drop_output() -> None:
    """Nobody reads the output, or it cannot be kept; Python would say so again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run(arguments: list[str]) -> int:
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
    except SystemExit:  # typer's answer to a closed pipe
        raise BrokenPipeError from None
    except BrokenPipeError:
        raise
    except Exception as error:
        if (said := _out_of_memory(error)) is not None:
            return _fail(said, 3, arguments)
        if _is_alone(error):
            what = "another process of this command has stopped; the same command continues where they were"
            return _fail(what, 3, arguments)
        if isinstance(error, OSError) and error.filename is not None:
            return _fail(*_of_file(error), arguments)
        if isinstance(error, OSError) and error.errno in (*_DISK, errno.EMFILE, errno.ENFILE):
            return _fail(f"cannot finish: {error.strerror}", 3, arguments)
        raise


def _is_alone(error: Exception) -> bool:
    """Whether an error comes from the loss of another process that torchrun started."""
    team = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return team and isinstance(error, RuntimeError) and any(words in str(error) for words in _PEER_LOST)


def _of_file(error: OSError) -> tuple[str, int]:
    """Sentence and exit code of a file that cannot be read or written."""
    if isinstance(error, PermissionError):
        return f"{error.filename}: no permission to read or write it", 2
    if error.errno in _DISK:
        failed = write_failed(Path(os.fsdecode(error.filename)), error)
        return str(failed), failed.exit_code
    code = 3 if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO) else 2
    return f"{error.filename}: cannot be read or written ({error.strerror})", code


def _out_of_memory(error: BaseException) -> str | None:
    """The sentence of an error that comes from too little memory, which libraries report in many ways."""
    for cause in _causes(error):
        text = str(cause)
        first = text.splitlines()[0] if text else ""
        if isinstance(cause, MemoryError):
            return f"out of memory ({first})" if first else "out of memory"
        if type(cause).__name__ == "OutOfMemoryError" or any(words in text for words in _NO_MEMORY):
            return f"out of memory ({first})"
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return "out of memory"
    if isinstance(error, SystemError) and _is_limited():
        # a C function failed without an error of its own, as some do where an allocation fails
        return f"out of memory ({str(error).splitlines()[0]}): this process may use only so much"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_limited() -> bool:
    """Whether the system limits the memory of this process."""
    try:
        import resource
    except ImportError:  # Windows
        return False
    return any(
        resource.getrlimit(limit)[0] != resource.RLIM_INFINITY
        for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    )


def main() -> None:
    """The console script."""
    # Read once, when torch loads GNU's OpenMP. Its threads would otherwise spin for milliseconds after each
    # operation and block the cores for the threads that read the store and compute convolutions
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if signal.getsignal(signal.SIGTERM) is not signals.handle:
        signals.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # e.g. a pipe of Windows, whose code page lacks letters
            stream.reconfigure(errors="backslashreplace")
    if (problem := hidden_package()) is not None:
        sys.exit(_fail(problem, 2, sys.argv[1:]))
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
