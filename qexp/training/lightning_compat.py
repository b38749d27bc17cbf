"""Context managers that suppress Lightning's advice and its handling of Ctrl-C."""

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
    """Raise KeyboardInterrupt on Ctrl-C, where Lightning would exit the process without writing a Record.

    Other exits pass through, such as SIGTERM, or a scheduler that preempts the job.
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
    """Suppress Lightning's advice on workers and devices, which does not apply to tokens in memory."""
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
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*", category=FutureWarning)  # torch's pytree
    # Newer versions of torch renamed the argument; older ones do not accept the new name.
    warnings.filterwarnings("ignore", message=r".*broadcast_buffers.*", category=FutureWarning)
    # In FP16 the first optimizer steps may be skipped while the loss scale settles; the schedule proceeds.
    warnings.filterwarnings("ignore", message=r".*lr_scheduler\.step.*before.*", category=UserWarning)
