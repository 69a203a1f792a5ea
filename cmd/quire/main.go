// Command quire turns directories of PDFs into page layout with a Triton
// Inference Server.
package main

import (
	"context"
	"os"
	"runtime/debug"

	"quire/orchestrator/render"
	"quire/tritonclient/guard"
)

func main() {
	// These two processes are copies of this program; see their packages.
	guard.Main()
	render.Main()

	// What quire keeps is small, so Go's collector, left alone, comes often and
	// finds little; each time it wakes every thread. So it lets the heap grow to
	// five times what is kept, some tens of megabytes.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}

	stops := watchSignals()
	os.Exit(execute(context.Background(), os.Args, os.Stdout, os.Stderr, stops))
}
