package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"quire/orchestrator"
)

// head is what the beginning of a document's file tells.
type head struct {
	doc    orchestrator.Document
	err    *orchestrator.PageError // why a run would fail to open it
	marked bool                    // it has the mark of a PDF
	fault  error                   // what would end a run there
}

// examine opens a document's file and reads its first KiB, in which readers
// look for the mark of a PDF (PDF 32000-1, annex H, 3.4.1). Its judgements are
// those that a run comes to.
func examine(doc orchestrator.Document) head {
	h := head{doc: doc, fault: doc.Err}
	if h.fault != nil {
		return h
	}
	fail := func(category orchestrator.Category, err error, message string) head {
		h.err = failure(doc, category, err, message)
		return h
	}
	file, err := doc.Open()
	if err != nil {
		if errors.As(err, &h.err) {
			return h
		}
		if orchestrator.TooManyOpenFiles(err) {
			h.fault = err
			return h
		}
		return fail(orchestrator.CategoryUnreadable, err, fmt.Sprintf("cannot be opened: %v", cause(err)))
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return fail(orchestrator.CategoryUnreadable, err, fmt.Sprintf("cannot be read: %v", cause(err)))
	case !info.Mode().IsRegular():
		return fail(orchestrator.CategoryNotRegular, nil, "not a regular file")
	case info.Size() == 0:
		return fail(orchestrator.CategoryEmpty, nil, "the file is empty")
	}
	h.doc.Size = info.Size()
	start := make([]byte, 1<<10)
	n, err := file.ReadAt(start, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fail(orchestrator.CategoryUnreadable, err, fmt.Sprintf("cannot be read: %v", cause(err)))
	}
	h.marked = bytes.Contains(start[:n], []byte("%PDF-"))
	return h
}

func failure(doc orchestrator.Document, category orchestrator.Category, err error, message string) *orchestrator.PageError {
	return &orchestrator.PageError{
		Ref: orchestrator.PageRef{Path: doc.Path}, Stage: orchestrator.StageOpen,
		Category: category, Message: message, Err: err,
	}
}

// cause drops the path that os puts into its errors.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
