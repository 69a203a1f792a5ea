// Package modelrepository carries the committed files of the model repository
// inside the binary: everything but the models themselves, which
// scripts/prepare_model.py builds.
package modelrepository

import "embed"

// Files holds the repository as it stands beside this file, without the Go
// files: layout/config.pbtxt, layout/configs/cpu.pbtxt and layout/labels.txt.
//
//go:embed layout/config.pbtxt layout/configs/cpu.pbtxt layout/labels.txt
var Files embed.FS
