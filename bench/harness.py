"""Runs one candidate at a time and measures it from outside."""

import contextlib
import ctypes
import glob
import itertools
import json
import os
import signal
import subprocess
import tempfile
import threading

TICK = os.sysconf("SC_CLK_TCK")
PREFIX = "quire-bench-"  # of every name in /dev/shm, then the process ID, then a dash


class Failure(Exception):
    """Says in one line what is wrong."""


def processes():
    """pid -> (parent, CPU seconds of it and of the children that it has waited for)."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        found[int(path.split("/")[2])] = int(fields[1]), sum(map(int, fields[11:15])) / TICK
    return found


def cpu_of(*roots):
    """CPU seconds so far of processes and all their descendants."""
    table = processes()
    children = {}
    for pid, (parent, _) in table.items():
        children.setdefault(parent, []).append(pid)
    total, todo = 0.0, [pid for pid in roots if pid in table]
    while todo:
        pid = todo.pop()
        total += table[pid][1]
        todo += children.get(pid, [])
    return total


def machine_cpu():
    """CPU seconds so far of everything that runs here, and of what other guests
    of the same host took away."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, steal = map(int, file.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


def die_with_parent():
    """Between fork and exec: an end of this program, even by SIGKILL, ends the child."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def last_line(file):
    file.seek(0)
    lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it says nothing about why"


class Server:
    """bench/server: the peers' packages and a Triton that everybody may use."""

    def __init__(self, command):
        # A session of its own: ^C is for this program, which then ends the rest.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, preexec_fn=die_with_parent
        )

    def ready(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failure("the server did not start")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()  # which asks it to end
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def measure(command, limit, server=None, stays=True):
    """Runs a candidate and returns what it tells, with cpu (seconds of its own
    processes, and of the server's when that is given, between its start and its
    summary) and others (CPU seconds of everything else meanwhile).

    A candidate that does not stay after its summary is counted to its very end.
    """
    servers = [server.process.pid] if server else []
    about, ended, status = {}, False, None
    with tempfile.TemporaryFile() as errors:
        candidate = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            start_new_session=True, preexec_fn=die_with_parent,
        )
        too_long = threading.Timer(limit, kill_group, [candidate.pid])
        too_long.start()
        try:
            for line in candidate.stdout:
                message = json.loads(line)
                if message["message_type"] == "start":
                    own, theirs, machine = cpu_of(candidate.pid), cpu_of(*servers), machine_cpu()
                elif message["message_type"] == "summary":
                    own_after, theirs_after, machine_after = cpu_of(candidate.pid), cpu_of(*servers), machine_cpu()
                    ended = True
                    candidate.stdin.close()  # it may go now
                else:
                    continue
                about.update(message)
            _, status, usage = os.wait4(candidate.pid, 0)
            candidate.returncode = os.waitstatus_to_exitcode(status)
        finally:
            in_time = too_long.is_alive()
            too_long.cancel()
            if status is None:  # interrupted
                end(candidate)
            candidate.stdin.close()
            candidate.stdout.close()
            sweep()
        if not in_time:
            raise Failure(f"was not done after {limit:.0f} s")
        if not ended:
            raise Failure(f"exit code {candidate.returncode}: {last_line(errors)}")
    if not stays:
        own_after = usage.ru_utime + usage.ru_stime  # of its children, too
    spent = own_after - own + theirs_after - theirs
    return {**about, "exit_code": candidate.returncode, "cpu": spent, "others": max(0.0, machine_after - machine - spent)}


def end(candidate):
    """Ends it: by itself, so that it tidies up, or else by force."""
    candidate.terminate()
    try:
        candidate.wait(5)
    except subprocess.TimeoutExpired:
        kill_group(candidate.pid)
        candidate.wait()


def kill_group(pid):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def region(numbers=itertools.count()):
    """A new name for shared memory that is this program's."""
    return f"{PREFIX}{os.getpid()}-{next(numbers)}"


def sweep():
    """Removes shared memory that was left by candidates of this program, or of
    one that is no more."""
    for path in glob.glob(f"/dev/shm/{PREFIX}*"):
        owner = os.path.basename(path)[len(PREFIX) :].partition("-")[0]
        if owner == str(os.getpid()) or not os.path.exists(f"/proc/{owner}"):
            with contextlib.suppress(OSError):
                os.unlink(path)
