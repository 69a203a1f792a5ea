//go:build linux

package render

import (
	"path"
	"strings"

	"quire/orchestrator/render/internal/mupdf"
)

// format is what a document is opened as; name is for people, with its article.
type format struct {
	reader mupdf.Format
	name   string
}

// format is told by the document's name alone: what a file's content looks like
// must not choose who reads it.
func (p *Pool) format(document string) format {
	pdf := format{mupdf.PDF, "a PDF"}
	if !p.cfg.OtherFormats {
		return pdf
	}
	switch strings.ToLower(strings.TrimPrefix(path.Ext(document), ".")) {
	case "bmp", "gif", "jb2", "jbig2", "jpeg", "jpg", "jp2", "j2k", "jpx", "jpf",
		"pbm", "pgm", "ppm", "pnm", "png", "psd", "tif", "tiff":
		return format{mupdf.Image, "an image"}
	case "cbz", "cbt":
		return format{mupdf.CBZ, "an archive of images"}
	case "svg":
		return format{mupdf.SVG, "an SVG drawing"}
	case "xps", "oxps":
		return format{mupdf.XPS, "an XPS document"}
	case "epub":
		return format{mupdf.EPUB, "an EPUB book"}
	case "fb2":
		return format{mupdf.FB2, "a FictionBook"}
	case "mobi":
		return format{mupdf.MOBI, "a Mobipocket book"}
	case "htm", "html", "xhtml":
		return format{mupdf.HTML, "an HTML page"}
	case "txt":
		return format{mupdf.Text, "a text"}
	}
	return pdf
}
