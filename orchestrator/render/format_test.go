//go:build linux

package render

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
)

// flag is a picture of 60×40 pixels: its left half of this colour, its right
// half white.
func flag(left color.Color) image.Image {
	m := image.NewRGBA(image.Rect(0, 0, 60, 40))
	for y := range 40 {
		for x := range 60 {
			m.Set(x, y, color.White)
			if x < 30 {
				m.Set(x, y, left)
			}
		}
	}
	return m
}

func encoded(t testing.TB, encode func(*bytes.Buffer, image.Image) error, m image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func pngOf(t testing.TB, m image.Image) []byte {
	return encoded(t, func(b *bytes.Buffer, m image.Image) error { return png.Encode(b, m) }, m)
}

type entry struct{ name, content string }

// zipped is a ZIP archive; like EPUB wants it, a first entry "mimetype" is not
// compressed.
func zipped(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		method := zip.Deflate
		if e.name == "mimetype" {
			method = zip.Store
		}
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: method})
		if err == nil {
			_, err = f.Write([]byte(e.content))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func tarred(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o600, Size: int64(len(e.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	xhtml = `<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>A</title></head><body style="color:#ff0000;margin:0">` +
		`<h1>A heading</h1><p>A paragraph of some words that fill a line and more than a line.</p></body></html>`
	xpsName = "http://schemas.microsoft.com/xps/2005/06"
)

func epub(t testing.TB, chapters int) []byte {
	entries := []entry{
		{"mimetype", "application/epub+zip"},
		{"META-INF/container.xml", `<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>`},
	}
	manifest, spine := "", ""
	for i := range chapters {
		name := fmt.Sprintf("c%d.xhtml", i)
		manifest += fmt.Sprintf(`<item id="c%d" href="%s" media-type="application/xhtml+xml"/>`, i, name)
		spine += fmt.Sprintf(`<itemref idref="c%d"/>`, i)
		entries = append(entries, entry{name, xhtml})
	}
	opf := `<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="2.0"><metadata/><manifest>` + manifest + `</manifest><spine>` + spine + `</spine></package>`
	return zipped(t, append(entries, entry{"book.opf", opf})...)
}

func xps(t testing.TB) []byte {
	return zipped(t,
		entry{"_rels/.rels", `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" Type="` + xpsName + `/fixedrepresentation" Target="/all.fdseq"/></Relationships>`},
		entry{"all.fdseq", `<FixedDocumentSequence xmlns="` + xpsName + `"><DocumentReference Source="/one.fdoc"/></FixedDocumentSequence>`},
		entry{"one.fdoc", `<FixedDocument xmlns="` + xpsName + `"><PageContent Source="/1.fpage"/></FixedDocument>`},
		entry{"1.fpage", `<FixedPage xmlns="` + xpsName + `" Width="400" Height="200"><Path Data="M 0,0 L 200,0 200,200 0,200 Z" Fill="#ff0000"/></FixedPage>`})
}

// mobi is an uncompressed Mobipocket book of one record
// (wiki.mobileread.com/wiki/MOBI).
func mobi(html string) []byte {
	const records = 2
	const head = 78 + 8*records + 2
	var first []byte // the PalmDOC header, and as much of MOBI's as there must be
	u16 := func(v int) { first = binary.BigEndian.AppendUint16(first, uint16(v)) }
	u32 := func(v int) { first = binary.BigEndian.AppendUint32(first, uint32(v)) }
	u16(1) // no compression
	u16(0)
	u32(len(html))
	u16(1) // one text record
	u16(4096)
	u32(0) // not encrypted
	first = append(first, "MOBI"...)
	u32(232)
	u32(2)     // a book
	u32(65001) // in UTF-8
	first = append(first, make([]byte, 232-16)...)

	var b []byte
	b = append(b, make([]byte, 60)...)
	copy(b, "book")
	b = append(b, "BOOKMOBI"...)
	b = append(b, make([]byte, 8)...)
	b = binary.BigEndian.AppendUint16(b, records)
	for _, offset := range []int{head, head + len(first)} {
		b = binary.BigEndian.AppendUint32(b, uint32(offset))
		b = append(b, 0, 0, 0, 0)
	}
	b = append(b, 0, 0)
	return append(append(b, first...), html...)
}

func namedDocument(t testing.TB, name string, data []byte) orchestrator.Document {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return orchestrator.Document{Path: "in/" + name, Open: func() (*os.File, error) { return os.Open(path) }}
}

// near tells whether two colours are alike but for rounding and JPEG.
func near(a, b [3]byte) bool {
	for i := range a {
		if max(a[i], b[i])-min(a[i], b[i]) > 8 {
			return false
		}
	}
	return true
}

func TestOtherFormats(t *testing.T) {
	red := color.RGBA{R: 255, A: 255}
	picture := flag(red)
	const a5w, a5h = 420, 595
	w := newWorker(t, newPool(t, Config{OtherFormats: true}))
	// flagged is that the left half of the first page is red and the right half
	// white; otherwise the page must have something red or black on white.
	for _, c := range []struct {
		name          string
		data          []byte
		pages         int
		width, height float64
		flagged       bool
	}{
		{"a.png", pngOf(t, picture), 1, 45, 30, true},
		{"A.PNG", pngOf(t, picture), 1, 45, 30, true},
		{"a.jpg", encoded(t, func(b *bytes.Buffer, m image.Image) error { return jpeg.Encode(b, m, &jpeg.Options{Quality: 100}) }, picture), 1, 45, 30, true},
		{"a.gif", encoded(t, func(b *bytes.Buffer, m image.Image) error { return gif.Encode(b, m, nil) }, picture), 1, 45, 30, true},
		{"a.bmp", encoded(t, func(b *bytes.Buffer, m image.Image) error { return bmp.Encode(b, m) }, picture), 1, 60, 40, true},
		{"a.tif", encoded(t, func(b *bytes.Buffer, m image.Image) error { return tiff.Encode(b, m, nil) }, picture), 1, 60, 40, true},
		{"a.ppm", []byte("P6 40 10 255\n" + strings.Repeat(strings.Repeat("\xff\x00\x00", 20)+strings.Repeat("\xff\xff\xff", 20), 10)), 1, 30, 7.5, true},
		{"a.cbz", zipped(t, entry{"2.png", string(pngOf(t, flag(color.Black)))}, entry{"1.png", string(pngOf(t, picture))}, entry{"notes.txt", "x"}), 2, 45, 30, true},
		{"a.cbt", tarred(t, entry{"1.png", string(pngOf(t, picture))}), 1, 45, 30, true},
		{"a.svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100"><rect width="100" height="100" fill="#ff0000"/></svg>`), 1, 200, 100, true},
		{"a.xps", xps(t), 1, 300, 150, true},
		{"a.oxps", xps(t), 1, 300, 150, true},
		{"a.epub", epub(t, 3), 3, a5w, a5h, false},
		{"a.fb2", []byte(`<?xml version="1.0"?><FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0"><body><section><p>A paragraph.</p></section></body></FictionBook>`), 1, a5w, a5h, false},
		{"a.mobi", mobi(`<html><body><p>A paragraph.</p></body></html>`), 1, a5w, a5h, false},
		{"a.html", []byte(xhtml), 1, a5w, a5h, false},
		{"a.htm", []byte(`<p>not XML<br>at all`), 1, a5w, a5h, false},
		{"a.xhtml", []byte(xhtml), 1, a5w, a5h, false},
		{"a.txt", []byte(strings.Repeat("A line of plain text.\n", 200)), 5, a5w, a5h, false},
		{"a.pdf", pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 200 100]", Content: "1 0 0 rg 0 0 100 100 re f"}).Bytes(), 1, 200, 100, true},
		{"any name", pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 200 100]", Content: "1 0 0 rg 0 0 100 100 re f"}).Bytes(), 1, 200, 100, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if n, err := w.Open(t.Context(), namedDocument(t, c.name, c.data)); err != nil || n != c.pages {
				t.Fatalf("%d pages (%v), want %d", n, err, c.pages)
			}
			pixels, geometry, err := w.Draw(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(geometry.WidthPt-c.width) > 1e-3 || math.Abs(geometry.HeightPt-c.height) > 1e-3 || geometry.Rotation != 0 ||
				geometry.CropBox != [4]float64{0, 0, geometry.WidthPt, geometry.HeightPt} {
				t.Errorf("geometry %+v, want %g×%g", geometry, c.width, c.height)
			}
			if !c.flagged {
				if bytes.Count(pixels, []byte{255}) == len(pixels) {
					t.Error("the page is blank")
				}
				return
			}
			for y := range height {
				for x := range width {
					want := [3]byte{255, 0, 0}
					if x > width/2 {
						want = [3]byte{255, 255, 255}
					}
					got := [3]byte(pixels[(y*width+x)*3:])
					if x < width/2-4 || x > width/2+4 { // images are smoothed between pixels
						if !near(got, want) {
							t.Fatalf("pixel %d,%d is %v, want %v", x, y, got, want)
						}
					}
				}
			}
		})
	}
}

// Who reads a document is told by its name, and where nobody asked, it is the
// reader of PDFs.
func TestContentDoesNotChooseTheReader(t *testing.T) {
	picture := pngOf(t, flag(color.Black))
	pdf := pdftest.Simple("", plainPage(255, 0, 0)).Bytes()
	for _, c := range []struct {
		name     string
		others   bool
		document string
		data     []byte
		want     orchestrator.Category
	}{
		{"off", false, "a.png", picture, orchestrator.CategoryNotPDF},
		{"an image by a PDF's name", true, "a.pdf", picture, orchestrator.CategoryNotPDF},
		{"an image without a name", true, "a", picture, orchestrator.CategoryNotPDF},
		{"a PDF by an image's name", true, "a.png", pdf, orchestrator.CategoryMalformed},
		{"a PDF by a book's name", true, "a.epub", pdf, orchestrator.CategoryMalformed},
		{"an empty archive", true, "a.cbz", zipped(t), orchestrator.CategoryMalformed},
		{"an archive of other things", true, "a.cbz", zipped(t, entry{"a.txt", "x"}), orchestrator.CategoryNoPages},
		{"half an image", true, "a.png", picture[:len(picture)/2], orchestrator.CategoryMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorker(t, newPool(t, Config{OtherFormats: c.others}))
			_, err := w.Open(t.Context(), namedDocument(t, c.document, c.data))
			if err == nil { // an image is looked at when it is drawn
				_, _, err = w.Draw(t.Context(), 1)
			}
			var e *orchestrator.PageError
			if !errors.As(err, &e) || e.Category != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
	t.Run("a PDF by any name", func(t *testing.T) {
		w := newWorker(t, newPool(t, Config{}))
		open(t, w, namedDocument(t, "a.png", pdf))
		wantColour(t, w, 1, 255, 0, 0)
	})
}

// A document must not show what lies elsewhere on the machine.
func TestNothingOutsideIsRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "secret.png")
	if err := os.WriteFile(file, pngOf(t, flag(color.Black)), 0o644); err != nil {
		t.Fatal(err)
	}
	below := strings.TrimPrefix(file, "/") // workers run in /
	refer := func(format string) (all string) {
		for _, name := range []string{file, below, "file://" + file, "../../../.." + file} {
			all += fmt.Sprintf(format, name)
		}
		return all
	}
	// The sandbox would hide what MuPDF tries.
	w := newWorker(t, newPool(t, Config{OtherFormats: true, Sandbox: SandboxOff}))
	for name, data := range map[string][]byte{
		"a.html":  []byte(`<html><body>` + refer(`<img src="%s">`) + `</body></html>`),
		"a.xhtml": []byte(`<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body>` + refer(`<img src="%s"/>`) + `</body></html>`),
		"a.svg":   []byte(`<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="200" height="100">` + refer(`<image xlink:href="%s" width="200" height="100"/>`) + `</svg>`),
		"a.epub": zipped(t,
			entry{"mimetype", "application/epub+zip"},
			entry{"META-INF/container.xml", `<?xml version="1.0"?><container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>`},
			entry{"b.opf", `<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="2.0"><manifest><item id="c" href="c.xhtml"/></manifest><spine><itemref idref="c"/></spine></package>`},
			entry{"c.xhtml", `<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body>` + refer(`<img src="%s"/>`) + `</body></html>`}),
		"a.cbt": outsideTar(t, file),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := w.Open(t.Context(), namedDocument(t, name, data)); err != nil {
				t.Log(err)
				return
			}
			pixels, _, err := w.Draw(t.Context(), 1)
			if err != nil {
				t.Log(err)
				return
			}
			if bytes.Contains(pixels, make([]byte, 3*width/4)) { // a row of black
				t.Error("the page shows a file of this machine")
			}
		})
	}
}

// outsideTar is an archive whose only entry is a link out of it.
func outsideTar(t testing.TB, target string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "1.png", Typeflag: tar.TypeSymlink, Linkname: target}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPictures(t *testing.T) {
	pool := newPool(t, Config{})
	p, err := pool.NewPictures(t.Context(), 200, 300)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	boxes := []struct {
		attrs         string
		width, height int
	}{
		{"/MediaBox[0 0 100 100]", 200, 200},
		{"/MediaBox[0 0 100 50]", 200, 100},
		{"/MediaBox[0 0 100 50]/Rotate 90", 150, 300},
		{"/MediaBox[0 0 40 60]", 200, 300},
		{"/MediaBox[0 0 1 10000]", 1, 300},
		{"/MediaBox[0 0 10000 1]", 200, 1},
	}
	var pages []pdftest.Page
	for _, b := range boxes {
		pages = append(pages, pdftest.Page{Attrs: b.attrs, Content: "0 0 1 rg 0 0 10000 10000 re f"})
	}
	if n, err := p.Open(t.Context(), newDocument(t, pdftest.Simple("", pages...).Bytes())); err != nil || n != len(boxes) {
		t.Fatal(n, err)
	}
	for i, want := range boxes {
		m, geometry, err := p.Draw(t.Context(), i+1)
		if err != nil {
			t.Fatal(err)
		}
		if size := m.Bounds().Size(); size != image.Pt(want.width, want.height) || geometry.WidthPt == 0 {
			t.Errorf("%s: %v, want %d×%d", want.attrs, size, want.width, want.height)
		}
		for _, at := range []image.Point{{}, m.Bounds().Max.Sub(image.Pt(1, 1))} {
			if got := m.RGBAAt(at.X, at.Y); got != (color.RGBA{B: 255, A: 255}) {
				t.Errorf("%s: pixel %v is %v", want.attrs, at, got)
			}
		}
	}
	_, _, err = p.Draw(t.Context(), len(boxes)+1)
	wantError(t, err, orchestrator.StageRender, len(boxes)+1, orchestrator.CategoryNoSuchPage)
	if _, err := pool.NewPictures(t.Context(), 0, 10); err == nil {
		t.Error("pictures without width")
	}
}

// An input that says itself why it cannot be used is taken at its word.
func TestInputSaysWhy(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	_, err := w.Open(t.Context(), orchestrator.Document{Path: "in/a.pdf", Open: func() (*os.File, error) {
		return nil, &orchestrator.PageError{Ref: orchestrator.PageRef{Path: "in/a.pdf"}, Stage: orchestrator.StageOpen,
			Category: orchestrator.CategoryNotRegular, Message: "not a regular file but a socket"}
	}})
	e := wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryNotRegular)
	if e.Message != "not a regular file but a socket" {
		t.Errorf("message %q", e.Message)
	}
}
