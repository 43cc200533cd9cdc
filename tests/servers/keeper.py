"""Run a command for as long as standard input is open: ``keeper.py SIGNAL command ...``.

Whatever ends the tests, a crash or a kill included, closes the pipe, so no server outlives them. The command is ended
with SIGNAL, and killed when it does not obey within 10 seconds. Each line on standard input is the name of a signal
that the command is sent. Descriptors that were inherited are passed on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main() -> None:
    ending, command = signal.Signals[sys.argv[1]], sys.argv[2:]
    # A group of its own, so that workers which survive their master can be ended too.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, close_fds=False, start_new_session=True)
    # Whoever waits for the keeper also learns that the command ended by itself.
    threading.Thread(target=lambda: os._exit(process.wait() & 0xFF), daemon=True).start()
    for line in sys.stdin.buffer:
        process.send_signal(signal.Signals[line.decode().strip()])
    process.send_signal(ending)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
