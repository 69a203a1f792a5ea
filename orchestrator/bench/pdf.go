package bench

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
)

// writePDF writes a document whose pages all look the same: a heading, two
// columns of text and a table. Nothing but the file's fonts is shared between
// them, so that a page costs the same wherever it stands.
func writePDF(name string, pages int) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	encodePDF(w, pages)
	return cmp.Or(w.Flush(), f.Close())
}

// The objects before those of the pages, two for each of them.
const (
	catalog = iota + 1
	tree
	regular
	bold
	firstPage
)

// encodePDF leaves errors of writing to out, which keeps them for its Flush.
func encodePDF(out *bufio.Writer, pages int) {
	var content bytes.Buffer
	z := zlib.NewWriter(&content)
	_, _ = io.WriteString(z, drawing()) // a buffer takes all
	_ = z.Close()

	w := &countingWriter{w: out}
	var offsets []int
	object := func(format string, args ...any) {
		offsets = append(offsets, w.n)
		fmt.Fprintf(w, "%d 0 obj\n", len(offsets))
		fmt.Fprintf(w, format, args...)
		fmt.Fprint(w, "\nendobj\n")
	}
	fmt.Fprint(w, "%PDF-1.4\n")
	object("<< /Type /Catalog /Pages %d 0 R >>", tree)
	var kids strings.Builder
	for i := range pages {
		fmt.Fprintf(&kids, " %d 0 R", firstPage+2*i)
	}
	object("<< /Type /Pages /Count %d /Kids [%s ] >>", pages, kids.String())
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Times-Roman >>")
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold >>")
	for i := range pages {
		object("<< /Type /Page /Parent %d 0 R /MediaBox [0 0 595 842] /Contents %d 0 R\n/Resources << /Font << /R %d 0 R /B %d 0 R >> >> >>",
			tree, firstPage+2*i+1, regular, bold)
		object("<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream", content.Len(), content.Bytes())
	}
	start := w.n
	fmt.Fprintf(w, "xref\n0 %d\n0000000000 65535 f \n", len(offsets)+1)
	for _, at := range offsets {
		fmt.Fprintf(w, "%010d 00000 n \n", at)
	}
	fmt.Fprintf(w, "trailer\n<< /Size %d /Root %d 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(offsets)+1, catalog, start)
}

// drawing is the content of a page, in PDF's operators.
func drawing() string {
	random := rand.New(rand.NewPCG(3, 4))
	var b strings.Builder
	text := func(font string, size, x, y float64, words string) {
		fmt.Fprintf(&b, "BT /%s %g Tf 1 0 0 1 %g %g Tm (%s) Tj ET\n", font, size, x, y, words)
	}
	line := func(letters int) string {
		var words []string
		for n := 0; n < letters; {
			word := make([]byte, 2+random.IntN(8))
			for i := range word {
				word[i] = "etaoinshrdlucmfwypvbgk"[random.IntN(22)]
			}
			words = append(words, string(word))
			n += len(word) + 1
		}
		return strings.Join(words, " ")
	}
	text("B", 18, 56, 770, "What stands on this page does not matter")
	for _, x := range []float64{56, 308} {
		for y := 730.0; y > 290; y -= 12 {
			text("R", 10, x, y, line(40))
		}
	}
	for row := range 9 {
		y := 250 - 20*float64(row)
		fmt.Fprintf(&b, "0.5 w 56 %g m 540 %g l S\n", y, y)
		for column := range 5 {
			text("R", 9, 60+97*float64(column), y-14, line(8))
		}
	}
	for column := range 6 {
		x := 56 + 96.8*float64(column)
		fmt.Fprintf(&b, "%g 250 m %g 90 l S\n", x, x)
	}
	return b.String()
}

// countingWriter counts what is written.
type countingWriter struct {
	w io.Writer
	n int
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += n
	return n, err
}
