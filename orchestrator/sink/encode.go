package sink

import (
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"quire/orchestrator"
)

// maxMessage bounds a message in a result, in bytes: a server's error text can
// be of any length.
const maxMessage = 500

// encoder writes JSON with keys in a fixed order and numbers with a fixed count
// of decimals, which encoding/json does not offer. [Document] is the same shape
// for reading.
type encoder struct {
	buf []byte
	err error // the first number that is not one
}

func (e *encoder) raw(s string)    { e.buf = append(e.buf, s...) }
func (e *encoder) int(v int64)     { e.buf = strconv.AppendInt(e.buf, v, 10) }
func (e *encoder) string(s string) { e.buf = appendString(e.buf, s) }

func (e *encoder) number(v float64, decimals int) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		if e.err == nil {
			e.err = fmt.Errorf("a result holds the number %v", v)
		}
		v = 0
	}
	start := len(e.buf)
	e.buf = strconv.AppendFloat(e.buf, v, 'f', decimals, 64)
	if strings.Trim(string(e.buf[start:]), "-0.") == "" && e.buf[start] == '-' {
		e.buf = append(e.buf[:start], e.buf[start+1:]...) // -0.00
	}
}

func (e *encoder) box(b [4]float64) {
	for i, v := range b {
		if i == 0 {
			e.raw("[")
		} else {
			e.raw(",")
		}
		e.number(v, 2)
	}
	e.raw("]")
}

// PathText is a document's path as results write it, and its path_encoding: the
// path itself, or, when it is not UTF-8, with '%' and the bytes that are not as
// %XX and the encoding "percent".
func PathText(path string) (text, encoding string) {
	if utf8.ValidString(path) {
		return path, ""
	}
	return escape(path), "percent"
}

// pathFrom is the path that PathText made a text of.
func pathFrom(text, encoding string) (string, error) {
	if encoding == "" {
		return text, nil
	}
	if encoding != "percent" {
		return "", fmt.Errorf("path_encoding %q: it is \"percent\" or not there", encoding)
	}
	return url.PathUnescape(text)
}

// path writes a document's path, and says so when it had to be escaped.
func (e *encoder) path(p string) {
	text, encoding := PathText(p)
	e.raw(`"path":`)
	e.string(text)
	if encoding != "" {
		e.raw(`,"path_encoding":"` + encoding + `"`)
	}
}

func (e *encoder) failure(err *orchestrator.PageError) {
	e.raw(`"stage":`)
	e.string(string(err.Stage))
	e.raw(`,"category":`)
	e.string(string(err.Category))
	e.raw(`,"message":`)
	e.string(oneLine(err.Message))
}

func (e *encoder) model(m orchestrator.ModelInfo) {
	e.raw(`{"name":`)
	e.string(m.Name)
	e.raw(`,"version":`)
	e.string(m.Version)
	if m.Digest != "" {
		e.raw(`,"digest":`)
		e.string(m.Digest)
	}
	e.raw(`}`)
}

// head writes a result up to and with the bracket that opens its pages.
func (e *encoder) head(d orchestrator.DocumentResult, m orchestrator.ModelInfo) {
	e.raw(`{"schema":"` + Schema + `","source":{`)
	e.path(d.Path)
	e.raw(`,"size":`)
	e.int(d.Size)
	e.raw(`},"model":`)
	e.model(m)
	e.raw(`,"status":`)
	e.string(string(d.Status))
	if d.Err != nil {
		e.raw(`,"error":{`)
		e.failure(d.Err)
		e.raw(`}`)
	}
	e.raw(`,"page_count":`)
	if d.PageCount < 0 {
		e.raw(`null`)
	} else {
		e.int(int64(d.PageCount))
	}
	e.raw(`,"bbox_unit":"pt","bbox_origin":"top-left","pages":[`)
}

// page writes one page's record, without the line's end.
func (e *encoder) page(p orchestrator.PageResult) {
	e.raw(`{"page_no":`)
	e.int(int64(p.Ref.Page))
	e.raw(`,"status":`)
	e.string(string(p.Status))
	if p.Err != nil {
		e.raw(`,"error":{`)
		e.failure(p.Err)
		e.raw(`}`)
	}
	e.raw(`,"page":`)
	if p.Geometry == (orchestrator.Geometry{}) {
		e.raw(`null`)
	} else {
		e.raw(`{"width_pt":`)
		e.number(p.Geometry.WidthPt, 2)
		e.raw(`,"height_pt":`)
		e.number(p.Geometry.HeightPt, 2)
		e.raw(`,"rotation":`)
		e.int(int64(p.Geometry.Rotation))
		e.raw(`,"crop_box":`)
		e.box(p.Geometry.CropBox)
		e.raw(`}`)
	}
	e.raw(`,"image":`)
	if p.ImageWidth == 0 && p.ImageHeight == 0 {
		e.raw(`null`)
	} else {
		e.raw(`{"width_px":`)
		e.int(int64(p.ImageWidth))
		e.raw(`,"height_px":`)
		e.int(int64(p.ImageHeight))
		e.raw(`}`)
	}
	e.raw(`,"regions":[`)
	for i, r := range p.Regions {
		if i > 0 {
			e.raw(`,`)
		}
		e.region(r)
	}
	e.raw(`]}`)
}

func (e *encoder) region(r orchestrator.Region) {
	e.raw(`{"id":`)
	e.int(int64(r.ID))
	e.raw(`,"label":`)
	e.string(r.Label)
	e.raw(`,"label_raw":`)
	e.string(r.LabelRaw)
	e.raw(`,"class_id":`)
	e.int(int64(r.ClassID))
	e.raw(`,"score":`)
	e.number(r.Score, 4)
	e.raw(`,"bbox":`)
	e.box(r.BBox)
	e.raw(`,"order":`)
	e.int(int64(r.Order))
	e.raw(`}`)
}

// failureLine writes one line of failed.jsonl. Page 0 is the document.
func (e *encoder) failureLine(ref orchestrator.PageRef, err *orchestrator.PageError) {
	e.raw(`{`)
	e.path(ref.Path)
	e.raw(`,"page":`)
	if ref.Page == 0 {
		e.raw(`null`)
	} else {
		e.int(int64(ref.Page))
	}
	e.raw(`,`)
	e.failure(err)
	e.raw("}\n")
}

// oneLine makes a message fit a line: control characters become spaces and the
// rest of a long one is left out.
func oneLine(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) <= maxMessage {
		return s
	}
	n := maxMessage - len("…")
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}

// appendString appends s as a JSON string (RFC 8259, section 7). What is not
// UTF-8 becomes U+FFFD.
func appendString(b []byte, s string) []byte {
	const hexDigits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ':
			b = append(b, `\u00`...)
			b = append(b, hexDigits[r>>4], hexDigits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
