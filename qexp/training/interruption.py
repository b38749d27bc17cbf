"""Ctrl-C and SIGTERM during a training: the current step is finished and saved, then the training ends.

A second signal ends at once; checkpoints are renamed when they are complete, so it leaves the last one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from qexp.progress.views import exit_on_sigterm

NOTICE = "stopping after this step, to save it; once more to stop at once"
FOR_WORKERS = (signal.SIGUSR1,)
"""Signal that a parent sends to its workers; Lightning has handlers of its own for the others."""


class StopRequest:
    """Request to end a training after its current step, made by a signal.

    Args:
        signals: Signals that make the request. SIGTERM counts only if nobody else handles it, such as
            submitit.
        requested: Called at the first signal.
    """

    def __init__(
        self, signals: Sequence[int] = (signal.SIGINT, signal.SIGTERM), requested: Callable[[], Any] = bool
    ) -> None:
        self.number: int | None = None
        """The signal; None as long as there is none."""
        self._signals = signals
        self._requested = requested
        self._before: dict[int, Any] = {}

    @property
    def made(self) -> bool:
        """Whether the training is to end."""
        return self.number is not None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals within the block; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        mine = [number for number in self._signals if number != signal.SIGTERM or _is_free()]
        self._before = {number: signal.getsignal(number) for number in mine}
        self.listen()
        try:
            yield
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)
            self._before = {}

    def listen(self) -> None:
        """Set the handlers again, as Lightning sets its own when it starts."""
        for number in self._before:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: Any) -> None:
        if self.made:
            self.end("")
        self.number = number
        self._requested()

    def end(self, message: str) -> NoReturn:
        """End the program as the signal asks for.

        Raises:
            KeyboardInterrupt: After Ctrl-C, or a signal of the parent, with the message.
            SystemExit: After SIGTERM.
        """
        if self.number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message) if message else KeyboardInterrupt


def _is_free() -> bool:
    return signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, exit_on_sigterm)


def interrupted(title: str, step: int, steps: int) -> KeyboardInterrupt:
    """Return the error of an interrupted training, which says what to do and from where it goes on."""
    where = f"step {step} of {steps}" if step else "its beginning, as there is no checkpoint yet"
    return KeyboardInterrupt(
        f"interrupted in {title}; the same command goes on from here: {title} from {where}"
    )
