#!/usr/bin/env python3
"""Runs quire for a long time while things go wrong, and holds it to account.

    go build -o quire ./cmd/quire && python3 scripts/soak.py --quire ./quire

A first run over the same pages is left in peace; its result tree is what the
second one is held against. In the second, every few seconds one of these
happens, chosen by lot:

    worker   a render worker is killed (SIGKILL)
    server   the Triton server is killed; quire starts it again
    freeze   the server is stopped and goes on a little later (SIGSTOP, SIGCONT)
    program  quire itself is killed, and the same command is started again; in
             the first half of the documents only, so that there is a quire
             whose memory can be watched for long

What is checked: the run comes to its end with exit code 0, every page is done,
no page was done twice over, the two result trees are the same bytes, nothing
stays behind in /dev/shm, each kind of fault has happened, and memory and
descriptors of the last quire do not grow. What is printed: a table of the
curve, in Markdown.

The model computes nothing. In the first run it answers at once, in the second
it takes some milliseconds for a page, so that there is time for faults.
Standard library only; Linux only.
"""

import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
FAULTS = ("worker", "server", "freeze", "program")


def make_input(directory, pages):
    """Hard links to the sample documents, 100 copies of each a directory."""
    samples = sorted((HERE.parent / "examples").glob("*.pdf"))
    copies = -(-pages // 16)  # they have 16 pages together
    for sample in samples:
        first = directory / sample.name
        shutil.copyfile(sample, first)
        for copy in range(1, copies):
            folder = directory / f"{copy // 100:04}"
            folder.mkdir(exist_ok=True)
            os.link(first, folder / f"{sample.stem}-{copy:05}.pdf")
    return copies * 16, copies * len(samples)


def make_repository(directory, page_ms):
    """The model that computes nothing, and takes its time for each page."""
    shutil.copytree(HERE / "bench_repository" / "instant", directory)
    config = directory / "layout" / "configs" / "cpu.pbtxt"
    was = '"bench.page_ms" value { string_value: "0" }'
    text = config.read_text()
    assert was in text, config
    config.write_text(text.replace(was, was.replace('"0"', f'"{page_ms:g}"')))


def tree(directory):
    """Name and content of every result below a directory."""
    digests = {}
    for path in directory.rglob("*"):
        name = path.relative_to(directory)
        if path.is_file() and name.parts[0] != ".quire" and name.name != "run.json":
            digests[str(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def processes():
    """pid -> (parent, name, command line) of everything that runs."""
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = pathlib.Path("/proc", entry, "stat").read_text()
            command = pathlib.Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        after = stat[stat.rindex(")") + 2 :].split()
        found[int(entry)] = (int(after[1]), after[0], command)
    return found


class Family:
    """The processes of one quire: workers, guard, server."""

    def __init__(self, pid):
        self.pid, everything = pid, processes()
        self.members = {pid}
        grown = True
        while grown:
            more = {child for child, (parent, state, _) in everything.items() if parent in self.members and state != "Z"}
            grown = not more <= self.members
            self.members |= more
        self.command = {pid: everything[pid][2] for pid in self.members if pid in everything}

    def named(self, *words):
        return [pid for pid, command in self.command.items() if any(word in command for word in words)]

    def workers(self):
        return self.named("quire-render")

    def server(self):
        return [pid for pid in self.named("tritonserver") if "python_backend_stub" not in self.command[pid]]

    def ours(self):
        theirs = set(self.named("tritonserver", "triton_python_backend_stub"))
        return [pid for pid in self.members if pid not in theirs]

    def memory(self):
        """Bytes of quire's own processes; what they share counts once (PSS)."""
        total = 0
        for pid in self.ours():
            try:
                for line in pathlib.Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
            except OSError:
                pass
        return total

    def descriptors(self):
        try:
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        except OSError:
            return 0


class Run:
    """`quire run` with its events read as they come."""

    def __init__(self, quire, source, output, repository):
        self.process = subprocess.Popen(
            [quire, "run", source, "-o", output, "--model-repository", repository, "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        self.documents, self.pages, self.summary, self.last_words = 0, 0, None, ""
        self.began = threading.Event()
        self.readers = [threading.Thread(target=self.read_events), threading.Thread(target=self.read_words)]
        for reader in self.readers:
            reader.start()

    def read_events(self):
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line of a program that was killed
            if event["message_type"] == "document" and event["status"] != "skipped":
                self.documents += 1
                self.pages += event["pages"]["done"]
                self.began.set()
            elif event["message_type"] == "summary":
                self.summary = event
        self.began.set()

    def read_words(self):
        for line in self.process.stderr:
            self.last_words = line.strip() or self.last_words

    def wait(self):
        code = self.process.wait()
        for reader in self.readers:
            reader.join()
        return code


def kill(pids, number, lot):
    """Sends a signal to one of pids; tells whether there was one."""
    try:
        os.kill(lot.choice(pids), number)
    except (IndexError, ProcessLookupError):
        return False
    return True


def do_harm(fault, run, lot):
    family = Family(run.process.pid)
    if fault == "worker":
        return kill(family.workers(), signal.SIGKILL, lot)
    if fault == "server":
        return kill(family.server(), signal.SIGKILL, lot)
    if fault == "freeze":
        frozen = family.server()
        if not kill(frozen, signal.SIGSTOP, lot):
            return False
        time.sleep(lot.uniform(0.2, 2))
        return kill(frozen, signal.SIGCONT, lot)
    run.process.kill()
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quire", required=True, help="the program to test")
    parser.add_argument("--pages", type=int, default=20_000)
    parser.add_argument("--every", type=float, default=4, help="seconds between faults, on average")
    parser.add_argument("--faults", default=",".join(FAULTS), help="which, of " + ",".join(FAULTS))
    parser.add_argument("--page-ms", type=float, default=15, help="milliseconds that the model takes for a page while there are faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20, help="rows of the table")
    args = parser.parse_args()
    chosen = args.faults.split(",")
    if not set(chosen) <= set(FAULTS):
        parser.error(f"--faults: one or more of {','.join(FAULTS)}")
    quire, lot, wrong = os.path.abspath(args.quire), random.Random(args.seed), []
    with tempfile.TemporaryDirectory(prefix="quire-soak-") as work:
        work = pathlib.Path(work)
        (work / "in").mkdir()
        pages, documents = make_input(work / "in", args.pages)
        instant, slow = str(HERE / "bench_repository" / "instant"), str(work / "repository")
        make_repository(work / "repository", args.page_ms)
        print(f"{documents} documents, {pages} pages; first a run in peace", file=sys.stderr)
        quiet = Run(quire, str(work / "in"), str(work / "quiet"), instant)
        if quiet.wait() != 0:
            sys.exit(f"the run in peace ended with {quiet.process.returncode}: {quiet.last_words}")
        shared_before = set(os.listdir("/dev/shm"))

        begun, told, samples, happened, restarts = time.monotonic(), 0, [], dict.fromkeys(chosen, 0), 0
        next_fault = 0
        run = Run(quire, str(work / "in"), str(work / "harmed"), slow)
        while True:
            if not run.began.wait(0.5) and run.process.poll() is None:
                continue  # it has not come to its first document yet
            if next_fault == 0:
                next_fault = time.monotonic() + lot.uniform(0.5, 1.5) * args.every
            if run.process.poll() is None and time.monotonic() >= next_fault:
                next_fault = time.monotonic() + lot.uniform(0.5, 1.5) * args.every
                late = told + run.documents > documents / 2
                fault = lot.choice([fault for fault in chosen if not (late and fault == "program")] or chosen)
                if do_harm(fault, run, lot):
                    happened[fault] += 1
            if run.process.poll() is not None:
                code = run.wait()
                told += run.documents
                if code == -signal.SIGKILL:
                    restarts += 1
                    next_fault = 0
                    run = Run(quire, str(work / "in"), str(work / "harmed"), slow)
                    continue
                break
            family = Family(run.process.pid)
            samples.append((time.monotonic() - begun, told + run.documents, family.memory(), family.descriptors(), sum(happened.values()), run.process.pid))
            time.sleep(0.25)

        if code != 0:
            wrong.append(f"it ended with {code}: {run.last_words}")
        if run.summary and run.summary["pages_total"] != pages:
            wrong.append(f"the last summary speaks of {run.summary['pages_total']} pages of {pages}: {run.summary}")
        before, after = tree(work / "quiet"), tree(work / "harmed")
        differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        if differing:
            wrong.append(f"{len(differing)} files differ from the run in peace, such as {differing[:3]}")
        # A document may be told twice when the program was killed between the two.
        if told > documents + restarts * 64:
            wrong.append(f"{told} documents were done, of {documents}, with {restarts} restarts")
        left = set(os.listdir("/dev/shm")) - shared_before
        if left:
            wrong.append(f"/dev/shm still has {sorted(left)}")

        calm = [sample for sample in samples if sample[1] > 0]
        print(f"{pages} pages in {documents} documents; "
              + ", ".join(f"{count} × {fault}" for fault, count in happened.items())
              + f"; {samples[-1][0]:.0f} s with faults, {quiet.summary['seconds']:.0f} s without\n")
        print("| seconds | documents | faults | memory of quire's processes, MB | descriptors of quire |\n|---|---|---|---|---|")
        for row in range(args.rows):
            at, done, memory, descriptors, faults, _ = calm[row * (len(calm) - 1) // max(1, args.rows - 1)]
            print(f"| {at:.0f} | {done} | {faults} | {memory / 1e6:.0f} | {descriptors} |")
        for fault, count in happened.items():
            if count == 0:
                wrong.append(f"there was no {fault} among the faults")
        last = [sample for sample in calm if sample[5] == run.process.pid]
        third = max(1, len(last) // 3)
        print()
        for what, column, unit in (("memory, MB", 2, 1e6), ("descriptors", 3, 1)):
            # The first third is for caches to fill.
            early = statistics.median(sample[column] for sample in last[third : 2 * third]) / unit
            late = statistics.median(sample[column] for sample in last[-third:]) / unit
            print(f"The last quire's {what}, medians of its second third and its last: {early:.1f}, {late:.1f}.")
            if late > 1.25 * early:
                wrong.append(f"{what} grew: {early:.1f} in the second third, {late:.1f} in the last")
    for what in wrong:
        print("WRONG: " + what, file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
