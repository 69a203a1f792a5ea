// Package examples carries the sample documents inside the binary, for
// measuring where nothing else is at hand, and what the reference pipeline finds
// on them.
package examples

import "embed"

// Files holds the PDFs beside this file.
//
//go:embed *.pdf
var Files embed.FS

// Reference is reference.json: for the pages of Files, the answers of the pipeline
// that the layout model comes from, in the form of verify.Reference.
//
//go:embed reference.json
var Reference []byte
