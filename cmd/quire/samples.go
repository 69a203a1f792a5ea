package main

import (
	"context"
	"io/fs"
	"iter"
	"os"

	"golang.org/x/sys/unix"

	samplefiles "quire/examples"
	"quire/orchestrator"
)

// samples are the documents that this program carries: an [orchestrator.Source]
// for commands that were given none.
type samples struct{}

func (samples) Documents(ctx context.Context) iter.Seq[orchestrator.Document] {
	return func(yield func(orchestrator.Document) bool) {
		names, _ := fs.Glob(samplefiles.Files, "*.pdf") // sorted; the pattern is good
		for _, name := range names {
			content, err := fs.ReadFile(samplefiles.Files, name)
			doc := orchestrator.Document{Path: name, Size: int64(len(content)), Open: func() (*os.File, error) {
				if err != nil {
					return nil, err
				}
				return inMemory(name, content)
			}}
			if ctx.Err() != nil || !yield(doc) {
				return
			}
		}
	}
}

// inMemory makes a file that is nowhere on disk.
func inMemory(name string, content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
