#!/usr/bin/env python3
"""Writes the lockfiles: scripts/requirements-NAME.in -> scripts/requirements-NAME.txt.

A .in file pins every package by hand, dependencies included, one
`name==version` a line. This script asks pip, under each interpreter given,
which wheel it would take on this machine (linux x86_64) and writes that
wheel's SHA-256 down, so that

    pip install --no-deps --require-hashes --only-binary :all: -r NAME.txt

installs the same files under any of those interpreters, and nothing else.

    scripts/lock.py PYTHON3.10 PYTHON3.11 PYTHON3.12 PYTHON3.13
"""

import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent


def pins(path):
    lines = (line.split("#", 1)[0].strip() for line in path.read_text().splitlines())
    return [line for line in lines if line]


def wheels(python, path):
    """name -> (version, sha256) of the wheels this interpreter's pip picks."""
    command = [
        python, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-deps",
        "--only-binary", ":all:", "--quiet", "--report", "-", "-r", str(path),
    ]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        found[name] = (
            item["metadata"]["version"],
            item["download_info"]["archive_info"]["hashes"]["sha256"],
        )
    return found


def main(pythons):
    if not pythons:
        sys.exit(__doc__)
    for source in sorted(HERE.glob("requirements-*.in")):
        merged = {}
        for python in pythons:
            for name, (version, digest) in wheels(python, source).items():
                merged.setdefault((name, version), set()).add(digest)
        out = [
            f"# Written by scripts/lock.py from {source.name}; do not edit.",
            "# CPython 3.10 to 3.13, linux x86_64.",
        ]
        for (name, version), digests in sorted(merged.items()):
            hashes = [f"    --hash=sha256:{digest}" for digest in sorted(digests)]
            out.append(" \\\n".join([f"{name}=={version}", *hashes]))
        source.with_suffix(".txt").write_text("\n".join(out) + "\n")
        print(f"{source.with_suffix('.txt').name}: {len(merged)} packages", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
