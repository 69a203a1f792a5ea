package main

import (
	"os"
	"testing"

	"quire/orchestrator/render"
	"quire/tritonclient/guard"
)

func TestMain(m *testing.M) {
	guard.Main()
	render.Main()
	os.Exit(m.Run())
}
