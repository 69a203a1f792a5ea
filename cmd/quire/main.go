// Command quire turns directories of PDFs into page layout with a Triton
// Inference Server.
package main

import (
	"context"
	"os"

	"quire/orchestrator/render"
	"quire/tritonclient/guard"
)

func main() {
	// These two processes are copies of this program; see their packages.
	guard.Main()
	render.Main()

	stops := watchSignals()
	os.Exit(execute(context.Background(), os.Args, os.Stdout, os.Stderr, stops))
}
