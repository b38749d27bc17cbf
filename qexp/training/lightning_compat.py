"""Lightning, without what it does to a program: its advice, and its way out on Ctrl-C."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C stays Ctrl-C: Lightning would leave the process there and then, without a Record.

    Other ways out pass: a scheduler that takes the machine back, or SIGTERM.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from error


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's advice on workers and devices, which does not apply to in-memory tokens."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            _ignore()
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _ignore() -> None:
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(pytorch_)?lightning.*")
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)  # theirs, of torch
    # Newer versions of torch rename the argument, older ones do not know the new name.
    warnings.filterwarnings("ignore", message=r".*broadcast_buffers.*", category=FutureWarning)
    # The first steps in FP16 may be skipped while the loss scale is found; the rate goes on all the same.
    warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step.*before.*", category=UserWarning)
