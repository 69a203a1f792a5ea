// Package pages carries the documents that quire bench measures with when none
// are named. README.md beside this file says what they follow.
package pages

import "embed"

// Files holds the PDFs beside this file.
//
//go:embed *.pdf
var Files embed.FS
