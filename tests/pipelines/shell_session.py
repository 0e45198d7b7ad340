"""An interactive shell on a terminal of its own, as a user has it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from pathlib import Path

CTRL_C, CTRL_Z = "\x03", "\x1a"
OTHER_SCREEN, FIRST_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
HIDDEN_CURSOR, SHOWN_CURSOR = "\x1b[?25l", "\x1b[?25h"
PROMPT = "ready> "


class ShellSession:
    """A shell; what it and its programs write is in `text`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=os.environ | {"PS1": PROMPT, "TERM": "xterm"} | environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.text = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for(PROMPT)

    def type(self, keys: str) -> int:
        """Press keys; returns the length of the text before."""
        before = len(self.text)
        os.write(self._master, keys.encode())
        return before

    def wait_for(self, pattern: str, after: int = 0, timeout_s: float = 60.0) -> str:
        """Wait for a pattern in the text after a place; returns the text from there to the end of what was found."""
        with self._changed:
            self._changed.wait_for(lambda: re.search(pattern, self.text[after:]) or not self._reader.is_alive(), timeout_s)
            found = re.search(pattern, self.text[after:])
        assert found, f"expected {pattern!r} in {self.text[after:][-3000:]!r}"
        return self.text[after : after + found.end()]

    def close(self) -> None:
        """Hang up, and close the terminal once nobody reads from it."""
        self._shell.send_signal(signal.SIGHUP)  # which it passes on to its jobs
        try:
            self._shell.wait(2.0)
        except subprocess.TimeoutExpired:  # it had begun to wait for a key as the signal came, and would look at it after the next one
            self._shell.kill()
            self._shell.wait(60.0)
        self._reader.join(10.0)  # longer only where a program of the shell's is left
        os.close(self._master)

    def _read(self) -> None:
        try:
            while data := os.read(self._master, 65536):
                with self._changed:
                    self.text += data.decode(errors="replace")
                    self._changed.notify_all()
        except OSError:  # the terminal was closed
            pass
        finally:
            with self._changed:
                self._changed.notify_all()
