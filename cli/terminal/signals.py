"""Ctrl-C and SIGTERM: exceptions, so that all contexts are closed, but never inside an import.

An exception inside an import leaves half a module behind: libraries report other errors, or crash. Before a
command begins there is nothing to close, so a signal ends the process at once; later it waits for the import.
"""

import _thread
import json
import os
import signal
import sys
import threading
from types import FrameType

from cli.processes import first_process

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
LOOK_EVERY = 0.05
"""Seconds until a signal that came inside an import is looked at again."""


class Terminated(BaseException):
    """SIGTERM, raised at the current position of the program."""


class _State:
    begun = True
    """Whether a command may have work to close; false from `listen` to `begin`."""


def listen() -> None:
    """Handle both signals from now on, unless the parent process has this one ignore Ctrl-C."""
    _State.begun = False
    signal.signal(signal.SIGTERM, handle)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, handle)


def begin() -> None:
    """A command begins: from now on signals are exceptions."""
    _State.begun = True


def handle(number: int, frame: FrameType | None) -> None:
    """Handle a signal.

    Raises:
        KeyboardInterrupt, Terminated: at the current position of the program.
    """
    if not _State.begun:
        _end(signal.Signals(number))
    if _is_importing(frame):
        again = threading.Timer(LOOK_EVERY, _send_again, (number,))
        again.daemon = True
        again.start()
    elif number == signal.SIGINT:
        raise KeyboardInterrupt
    else:
        raise Terminated


def _end(number: signal.Signals) -> None:
    """End the process with the sentence and exit code that a command would give."""
    os.write(2, f"error: {WORDS[number]}\n".encode())
    if "--json" in sys.argv and first_process():
        os.write(1, (json.dumps({"error": WORDS[number], "exit_code": CODES[number]}) + "\n").encode())
    os._exit(CODES[number])


def _send_again(number: int) -> None:
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:  # this one also wakes a main thread that waits
        signal.pthread_kill(threading.main_thread().ident or 0, number)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
