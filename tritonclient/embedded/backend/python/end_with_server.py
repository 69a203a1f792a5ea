"""Ends a model's process when its server has ended.

A stub of Triton's Python backend means to do that by itself, but one whose
server was killed while the two were talking waits for it for ever, with the model
in memory. So whatever runs in a stub imports this first.
"""

import os
import select
import threading


def _end_with(server):
    try:
        end = [os.pidfd_open(server)]
    except (AttributeError, OSError):  # an old kernel or Python, a container's filter
        end = []
    try:
        with open(f"/proc/{server}/comm") as name:
            # Else it had ended before, and who took its child over is no server.
            serves = name.read().strip() == "tritonserver"
    except OSError:  # it has ended just now
        serves = False
    while serves and os.getppid() == server:
        select.select(end, [], [], None if end else 1)
    os._exit(1)


threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
