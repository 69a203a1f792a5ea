#!/usr/bin/env python3
"""Runs quire over a directory of PDFs and accounts for every file in it.

    corpus.py DIR OUT [--quire ./quire] [--limit SECONDS] [-- FLAGS OF quire run]

OUT must be new or empty. While quire runs, the memory of its processes is
looked at four times a second; afterwards the results, failed.jsonl, the last
line and the exit code are read and held against each other and against the
files in DIR. What was found is printed as Markdown.

Exit code: 0 every file ended in done, or in partial or failed with a category,
and all accounts agree; 1 something is unaccounted for (it is named), or quire
was still at work after the limit; 5 wrong usage.

Needs Linux, Python 3.10 or later and nothing else.

Memory is PSS (smaps_rollup in proc(5)): a page that several processes share
counts in parts that add up to one page. A server that quire started is told
apart from quire's own processes.
"""

import argparse
import collections
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time


# ---- watching the processes --------------------------------------------------

def read(path):
    try:
        with open(path, "rb") as f:
            return f.read()
    except OSError:  # the process has gone, or is no business of ours
        return b""


def tree(pid):
    """Yields (pid, command, belongs to a server) of a process and all below it."""
    children = collections.defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = read(f"/proc/{name}/stat")
            if stat:
                children[int(stat[stat.rindex(b")") + 2:].split()[1])].append(int(name))
    todo = [(pid, False)]
    while todo:
        pid, server = todo.pop()
        command = os.path.basename(read(f"/proc/{pid}/cmdline").split(b"\0")[0])
        server = server or command == b"tritonserver"
        yield pid, command, server
        todo += [(child, server) for child in children[pid]]


def pss(pid):
    found = re.search(rb"^Pss:\s+(\d+) kB", read(f"/proc/{pid}/smaps_rollup"), re.M)
    return int(found[1]) * 1024 if found else 0


class Watch(threading.Thread):
    """Samples memory, and which document each render worker has open."""

    EVERY = 0.25

    def __init__(self, pid, directory):
        super().__init__(daemon=True)
        self.pid, self.root = pid, os.fsencode(os.path.realpath(directory)) + b"/"
        self.over = threading.Event()
        self.samples = []  # PSS of (quire, server, main process, largest worker) in bytes, while there are workers
        self.since = {}  # worker -> (document, when it was seen first)
        self.open = collections.Counter()  # document -> longest time that one worker had it open

    def run(self):
        while not self.over.wait(self.EVERY):
            self.look()

    def look(self):
        quire = server = main = worker = workers = 0
        for pid, command, is_server in tree(self.pid):
            used = pss(pid)
            if is_server:
                server += used
                continue
            quire += used
            if pid == self.pid:
                main = used
            if command == b"quire-render":
                workers += 1
                worker = max(worker, used)
                self.look_at_document(pid)
        if workers:
            self.samples.append((quire, server, main, worker))

    def look_at_document(self, pid):
        now, found = time.monotonic(), None
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                target = os.readlink(os.fsencode(f"/proc/{pid}/fd/{fd}"))
                if target.startswith(self.root):
                    found = target[len(self.root):]
        except OSError:
            pass
        document, since = self.since.get(pid, (None, now))
        if document != found:
            since = now
        self.since[pid] = (found, since)
        if found:
            self.open[found] = max(self.open[found], now - since + self.EVERY)


# ---- what should be there and what is ----------------------------------------

def escape(name):
    """A path as results have it: bytes that are not UTF-8 as %XX, and % too then."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        pass
    out, text = "", name.decode("utf-8", "surrogateescape")
    for c in text:
        out += f"%{ord(c) - 0xDC00:02X}" if 0xDC80 <= ord(c) <= 0xDCFF else "%25" if c == "%" else c
    return out


def inputs(directory):
    """The documents that quire run has to account for, by its own rules for
    a directory: every name that ends in .pdf and is no directory."""
    root, found = os.fsencode(directory), set()
    for where, directories, files in os.walk(root):
        links = [d for d in directories if os.path.islink(os.path.join(where, d))]
        for name in files + links:
            if name.lower().endswith(b".pdf"):
                found.add(escape(os.path.relpath(os.path.join(where, name), root)))
    return found


class Account:
    def __init__(self):
        self.wrong = []  # what is not accounted for, for people
        self.documents, self.pages = collections.Counter(), collections.Counter()
        self.failed_documents, self.failed_pages = collections.Counter(), collections.Counter()
        self.failures = []  # (path, page or 0, stage, category) as the results have them
        self.longest = (0, "")
        self.regions = self.bytes = 0

    def check(self, ok, text):
        if not ok:
            self.wrong.append(text)

    def results(self, out, expected):
        seen = set()
        for where, directories, files in os.walk(os.fsencode(out)):
            if b".quire" in directories:
                directories.remove(b".quire")
            for name in files:
                path = os.path.join(where, name)
                if not name.endswith(b".json") or path == os.path.join(os.fsencode(out), b"run.json"):
                    continue
                self.result(os.fsdecode(path), seen)
        for path in sorted(expected - seen):
            self.wrong.append(f"{path}: no result")
        for path in sorted(seen - expected):
            self.wrong.append(f"{path}: a result of a file that is not there")

    def result(self, name, seen):
        try:
            with open(name, encoding="utf-8") as f:
                self.bytes += os.fstat(f.fileno()).st_size
                d = json.load(f)
        except ValueError as error:
            self.wrong.append(f"{name!r}: not JSON: {error}")
            return
        path, pages = d["source"]["path"], d["pages"]
        self.check(path not in seen, f"{path}: two results")
        seen.add(path)
        self.documents[d["status"]] += 1
        ends = collections.Counter(p["status"] for p in pages)
        self.pages += ends
        whole = "error" in d
        if whole:
            self.failed_documents[d["error"]["category"]] += 1
            self.failures.append((path, 0, d["error"]["stage"], d["error"]["category"]))
        for p in pages:
            self.check(("error" in p) == (p["status"] == "failed"), f"{path} page {p['page_no']}: {p['status']}, error {p.get('error')}")
            self.regions += len(p["regions"])
            if p["status"] == "failed":
                self.failed_pages[p["error"]["category"]] += 1
                self.failures.append((path, p["page_no"], p["error"]["stage"], p["error"]["category"]))
        right = ("failed" if whole or ends["failed"] == len(pages) else "partial" if ends["failed"] else "done")
        self.check(d["status"] == right, f"{path}: status {d['status']}, but its pages say {right}")
        self.check(set(ends) <= {"done", "failed"}, f"{path}: pages end as {dict(ends)}")
        self.check(all(f[3] for f in self.failures[-1:]), f"{path}: failed without a category")
        self.check(d["page_count"] == (None if whole else len(pages)), f"{path}: page_count {d['page_count']}, {len(pages)} pages")
        self.check([p["page_no"] for p in pages] == list(range(1, len(pages) + 1)), f"{path}: pages are not 1 to {len(pages)}")
        self.longest = max(self.longest, (len(pages), path))

    def failed_list(self, out):
        listed = []
        try:
            with open(os.path.join(out, "failed.jsonl"), encoding="utf-8") as f:
                for line in map(json.loads, f):
                    listed.append((line["path"], line["page"] or 0, line["stage"], line["category"]))
        except (OSError, ValueError) as error:
            self.wrong.append(f"failed.jsonl: {error}")
        for missing in (collections.Counter(self.failures) - collections.Counter(listed)).elements():
            self.wrong.append(f"failed.jsonl lacks {missing}")
        for extra in (collections.Counter(listed) - collections.Counter(self.failures)).elements():
            self.wrong.append(f"failed.jsonl has {extra}, the results do not")

    def last_line(self, line):
        for what, ends, names in (
            ("documents", self.documents, ("done", "partial", "failed", "skipped")),
            ("pages", self.pages, ("done", "failed", "skipped", "cancelled")),
        ):
            found = re.search(what + r": (\d+) = " + r" \+ ".join(rf"(\d+) {n}" for n in names), line)
            if not found:
                self.wrong.append(f"the last line does not count {what}: {line!r}")
                continue
            told = list(map(int, found.groups()))
            self.check(told == [sum(ends.values())] + [ends[n] for n in names], f"the last line's {what} are {told}, the results' {dict(ends)}")

    def exit_code(self, code):
        right = 3 if self.documents["partial"] + self.documents["failed"] else 0
        self.check(code == right, f"exit code {code}, wanted {right}")


# ---- the report --------------------------------------------------------------

def mb(n):
    return f"{n / 1e6:.0f} MB"


def counted(counter):
    return ", ".join(f"{n} {name}" for name, n in counter.most_common()) or "none"


def memory_rows(watch, parts=10):
    """The curve, as the mean of each tenth of the run."""
    s = watch.samples
    if len(s) < parts:
        return
    curve = [[sum(x[i] for x in s[len(s) * k // parts:len(s) * (k + 1) // parts]) / len(s[len(s) * k // parts:len(s) * (k + 1) // parts])
              for k in range(parts)] for i in (0, 2)]
    yield "quire's processes, peak", mb(max(x[0] for x in s))
    yield "main process, peak", mb(max(x[2] for x in s))
    yield "one worker, peak", mb(max(x[3] for x in s))
    if any(x[1] for x in s):
        yield "the server that quire started, peak", mb(max(x[1] for x in s))
    yield "all of quire, mean of each tenth of the run, MB", " ".join(f"{v / 1e6:.0f}" for v in curve[0])
    yield "main process alone, the same", " ".join(f"{v / 1e6:.0f}" for v in curve[1])
    third = len(s) // 3
    for name, i in ("all of quire", 0), ("main process", 2):
        first, last = (sum(x[i] for x in part) / len(part) for part in (s[:third], s[-third:]))
        yield f"{name}, last third against the first", f"{last / first:.2f} ({mb(first)} → {mb(last)})"


def report(account, expected, watch, seconds, said):
    rows = [("files", len(expected)), ("done", account.documents["done"]), ("partial", account.documents["partial"]),
            ("failed", account.documents["failed"]),
            ("documents that would not open", counted(account.failed_documents)),
            ("pages", sum(account.pages.values())), ("pages done", account.pages["done"]),
            ("pages failed", counted(account.failed_pages)),
            ("regions", account.regions),
            ("results", f"{account.bytes / 1e6:.1f} MB, {account.bytes / max(1, sum(account.pages.values())):.0f} bytes a page"),
            ("most pages in a document", f"{account.longest[0]} ({account.longest[1]})"),
            ("longest that a worker had one document open", ", ".join(f"{t:.1f} s ({escape(n)})" for n, t in watch.open.most_common(3))),
            ("wall time", f"{seconds:.0f} s"), *memory_rows(watch)]
    print("\n| | |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    print()
    for line in said:
        print(f"    {line}")


def main():
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[:own.index("--")], own[own.index("--") + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("out", metavar="OUT")
    parser.add_argument("--quire", default="./quire", help="the program (default: ./quire)")
    parser.add_argument("--limit", type=float, default=7200, help="seconds after which quire counts as hanging (default: 7200)")
    parser.error = lambda message: (parser.print_usage(sys.stderr), print(f"corpus.py: {message}", file=sys.stderr), sys.exit(5))
    args = parser.parse_args(own)
    if os.path.isdir(args.out) and os.listdir(args.out):
        parser.error(f"{args.out} is not empty: name a new directory")
    if not os.path.isfile(args.quire):
        parser.error(f"{args.quire}: no such program: build it (go build -o quire ./cmd/quire) or name it with --quire")

    expected, account = inputs(args.directory), Account()
    begin = time.monotonic()
    # A session of its own: Ctrl-C here reaches quire once, from here.
    quire = subprocess.Popen([args.quire, "run", args.directory, "-o", args.out, *flags], stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True)
    watch = Watch(quire.pid, args.directory)
    watch.start()
    said = []
    listener = threading.Thread(target=lambda: [said.append(line.rstrip()) for line in quire.stderr])
    listener.start()
    answer = []
    talker = threading.Thread(target=lambda: answer.append(quire.stdout.read()))
    talker.start()
    try:
        code = quire.wait(timeout=args.limit)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        account.wrong.append(f"quire still ran after {time.monotonic() - begin:.0f} s: killed")
        quire.send_signal(signal.SIGKILL)
        code = quire.wait()
    seconds = time.monotonic() - begin
    watch.over.set()
    watch.join()
    listener.join()
    talker.join()
    last = (answer[0].strip().splitlines() or [""])[-1]

    account.results(args.out, expected)
    account.failed_list(args.out)
    account.last_line(last)
    account.exit_code(code)
    settings = [line for line in said if "page buffers" in line]
    report(account, expected, watch, seconds, [*settings, last.replace(args.out, "OUT")])
    if account.wrong:
        print(f"\n**Unaccounted for: {len(account.wrong)}**\n")
        for text in account.wrong[:100]:
            print(f"- {text}")
        print("\nThe last that quire said:\n")
        for line in said[-20:]:
            print(f"    {line}")
        return 1
    print("\nEvery file is accounted for.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
