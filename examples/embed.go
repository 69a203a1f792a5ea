// Package examples carries the sample documents inside the binary, for
// measuring where nothing else is at hand.
package examples

import "embed"

// Files holds the PDFs beside this file.
//
//go:embed *.pdf
var Files embed.FS
