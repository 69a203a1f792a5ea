"""Tells what this interpreter has, as one JSON object on standard output."""

import ctypes
import importlib.util
import json
import os
import platform
import sys
import sysconfig


def libpython():
    """Where this version's shared library is, however it came to be there."""
    name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
    base = os.path.dirname(os.path.dirname(os.path.realpath(executable())))
    for folder in (sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib"), os.path.join(base, "lib")):
        if folder and os.path.isfile(os.path.join(folder, name)):
            return os.path.realpath(os.path.join(folder, name))
    try:
        ctypes.CDLL(name)  # the loader's own search path
    except OSError:
        return ""
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.rstrip("\n").partition("/")[2]
            if os.path.basename(path) == name:
                return os.path.realpath("/" + path)
    return ""


def executable():
    """The interpreter that virtual environments are made from."""
    return getattr(sys, "_base_executable", None) or sys.executable


def whole(module):
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None  # an empty folder has a spec too


def libc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""


json.dump(
    {
        "Version": platform.python_version(),
        "Implementation": sys.implementation.name,
        "Executable": executable(),
        "Machine": platform.machine(),
        "Libc": libc(),
        "Venv": whole("venv"),
        "Ensure": whole("ensurepip"),
        "Libpython": libpython(),
        "Prefix": sys.base_prefix,
    },
    sys.stdout,
)
