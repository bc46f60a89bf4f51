"""A stream as a service of systemd: its unit file, and what systemd is told while it runs.

Sources: systemd.service(5) and systemd.syntax(7) for the file, sd_notify(3) for the messages.
"""

import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgefuse.errors import InputError
from edgefuse.runtime.sources.base import REFERENCE, safe_name

WATCHDOG_SECONDS = 30  # without a sign of life, after which systemd starts the stream again
START_SECONDS = 1800  # until the first one: a TensorRT engine may have to be built
STOP_SECONDS = 30  # for outputs to be completed; they give up after 10

UNIT = """\
[Unit]
Description=edgefuse: {description}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
WorkingDirectory={folder}
User={user}
SupplementaryGroups=video
EnvironmentFile=-{environment}
Environment=PYTHONUNBUFFERED=1

# A camera that is not there yet, or a loop that hangs: start again. Not after a wrong command line.
Restart=on-failure
RestartSec=5
RestartPreventExitStatus=2
WatchdogSec={watchdog}
TimeoutStartSec={start}
TimeoutStopSec={stop}

MemoryMax=75%
TasksMax=512
LimitNOFILE=4096
NoNewPrivileges=yes
ProtectSystem=full
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def make_unit(args: Sequence[str], folder: Path, user: str, environment: Path) -> str:
    """Return the systemd unit that runs `edgefuse stream` with these arguments.

    Args:
        args: those of `stream`, as the shell gives them.
        folder: absolute; what relative paths among them refer to.
        user: who runs it.
        environment: absolute; the file of `NAME=value` that `${NAME}` in a source takes its secrets from.

    Raises:
        InputError: an argument contains a password, which everybody could read in the unit, or a control
            character, which no unit can hold.
    """
    for arg in args:
        shown = safe_name(re.sub(r"^--[\w-]+=", "", arg))
        if shown.count("***") > len(REFERENCE.findall(arg)):
            raise InputError(
                f"{shown} contains a password, or what may be one (***), which everybody could read in "
                f"the unit: write ${{NAME}} in its place (in single quotes), and NAME=… into {environment}"
            )
    if not re.fullmatch(r"[\w][\w.-]*", user):
        raise InputError(f"the user {user!r} is not a valid user name: give --user NAME")
    words = [sys.executable, "-m", "edgefuse", "stream", *args]
    texts = [*words, str(folder), str(environment)]
    if odd := next((text for text in texts if re.search(r"[\x00-\x1f\x7f]", text)), None):
        raise InputError(f"{odd!r} contains a control character, which a systemd unit cannot hold")
    return UNIT.format(
        description=_escaped(" ".join(shlex.quote(arg) for arg in args)),
        command=" ".join(map(_quoted, words)),
        folder=_escaped(str(folder)),
        user=user,
        environment=_escaped(str(environment)),
        watchdog=WATCHDOG_SECONDS,
        start=START_SECONDS,
        stop=STOP_SECONDS,
    )


def _escaped(text: str) -> str:
    """Keep systemd from replacing what follows a percent sign."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """Return one word of a command line for systemd; `${NAME}` is left to edgefuse, its value off `ps`."""
    text = _escaped(word).replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return text if re.fullmatch(r"[\w@%+=:,./?&*{}$#-]+", text) else f'"{text}"'


class ServiceNotifier:
    """Tells the service manager how the program is; without one it does nothing.

    The address is taken out of the environment, so that no program started from here speaks in our name.
    """

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        self._ready = False
        if self._address.startswith(("/", "\0")):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    def beating(self, then: Callable[[Any], None] | None) -> Callable[[Any], None] | None:
        """Return a function of one argument that beats, then calls `then`; without a manager `then`."""
        if self._socket is None:
            return then

        def beat(report: Any) -> None:
            self.beat()
            if then is not None:
                then(report)

        return beat

    def beat(self) -> None:
        """Say that the program runs, and at the first time that it is ready. Call it a few times a second."""
        if not self._ready:
            self._ready = self._send("READY=1")
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that the program completes what it has begun, and ends."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Give the socket back. Can be called twice."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def _send(self, state: str) -> bool:
        """Send a state; False: not now. A manager that is busy or gone never holds the stream up."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(state.encode(), self._address)
        except OSError:
            return False
        return True
