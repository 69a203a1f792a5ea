// Package scripts carries, inside the binary, the scripts and lockfiles that a
// run needs when no source tree is at hand.
//
// The lockfiles pin every package with its SHA-256 for CPython 3.10 to 3.13 on
// linux x86_64; install them with
//
//	pip install --no-deps --require-hashes --only-binary :all: -r FILE
//
// Several of them may go into one virtual environment.
package scripts

import "embed"

// BenchRepository is bench_repository: the model that answers at once.
//
//go:embed bench_repository
var BenchRepository embed.FS

var (
	// PrepareModel is prepare_model.py, which builds and checks the layout
	// model; it runs in an environment with RequirementsModel.
	//
	//go:embed prepare_model.py
	PrepareModel []byte

	// ReferenceLayout is reference_layout.py, which gives the answers of the
	// reference pipeline; it runs in an environment with RequirementsReference.
	//
	//go:embed reference_layout.py
	ReferenceLayout []byte

	// RequirementsServer locks what the embedded server runs on.
	//
	//go:embed requirements-server.txt
	RequirementsServer []byte

	// RequirementsModel locks what prepare_model.py needs.
	//
	//go:embed requirements-model.txt
	RequirementsModel []byte

	// RequirementsReference locks what reference_layout.py needs.
	//
	//go:embed requirements-reference.txt
	RequirementsReference []byte
)
