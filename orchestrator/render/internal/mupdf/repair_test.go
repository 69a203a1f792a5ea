//go:build linux

package mupdf

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"quire/orchestrator/render/internal/pdftest"
)

// written writes objects 1, 2, … as they are, each so many bytes behind where the
// table says it is. The table ends with the last that is listed.
func written(objects []string, off map[int]int, listed int) []byte {
	var out, table bytes.Buffer
	out.WriteString("%PDF-1.7\n")
	for i, o := range objects {
		if i < listed {
			fmt.Fprintf(&table, "%010d 00000 n \n", out.Len()+off[i+1])
		}
		fmt.Fprintf(&out, "%d 0 obj\n%s\nendobj\n", i+1, o)
	}
	xref := out.Len()
	fmt.Fprintf(&out, "xref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n", listed+1, &table, listed+1, xref)
	return out.Bytes()
}

// repairedAtTheThird has five pages and says count. What the third shows is not
// where the table says, so that MuPDF makes the table anew while it draws.
func repairedAtTheThird(count int) []byte {
	const square = "1 0 0 rg 0 0 200 100 re f"
	objects := []string{
		"<</Type/Catalog/Pages 2 0 R>>",
		fmt.Sprintf("<</Type/Pages/MediaBox[0 0 200 100]/Resources<</XObject<</F 3 0 R>>>>/Count %d/Kids[6 0 R 7 0 R 8 0 R 9 0 R 10 0 R]>>", count),
		fmt.Sprintf("<</Type/XObject/Subtype/Form/BBox[0 0 200 100]/Length %d>>\nstream\n%s\nendstream", len(square), square),
		fmt.Sprintf("<</Length %d>>\nstream\n%s\nendstream", len(square), square),
		"<</Length 5>>\nstream\n/F Do\nendstream",
	}
	for i := range 5 {
		objects = append(objects, fmt.Sprintf("<</Type/Page/Parent 2 0 R/Contents %d 0 R>>", []int{4, 4, 5, 4, 4}[i]))
	}
	return written(objects, map[int]int{3: 3}, len(objects))
}

// What the count of a page tree is put right to outlasts a repair.
func TestRepairWhileDrawing(t *testing.T) {
	for _, count := range []int{5, 1, 0, 3, 9} {
		for _, order := range [][]int{{0, 1, 2, 3, 4}, {4, 3, 2, 1, 0}, {2, 2, 4}} {
			e := newEngine(t)
			if n := open(t, e, repairedAtTheThird(count)); n != 5 {
				t.Errorf("count %d: %d pages", count, n)
			}
			for _, page := range order {
				rgb := make([]byte, 20*10*3)
				if _, err := e.Draw(page, 20, 10, false, rgb); err != nil || at(rgb, 20, 5, 5) != red {
					t.Errorf("count %d, order %v, page %d: %v, %v", count, order, page+1, err, at(rgb, 20, 5, 5))
				}
			}
		}
	}
}

// Where every page leads to a repair, not every page costs one.
func TestRepairOnEveryPage(t *testing.T) {
	const pages = 20
	objects := []string{
		"<</Type/Catalog/Pages 2 0 R>>", "",
		"<</Type/XObject/Subtype/Form/BBox[0 0 200 100]/Length 25>>\nstream\n1 0 0 rg 0 0 200 100 re f\nendstream",
		"<</Length 5>>\nstream\n/F Do\nendstream",
	}
	var kids strings.Builder
	for range pages {
		objects = append(objects, "<</Type/Page/Parent 2 0 R/Contents 4 0 R>>")
		fmt.Fprintf(&kids, "%d 0 R ", len(objects))
	}
	objects[1] = fmt.Sprintf("<</Type/Pages/MediaBox[0 0 200 100]/Resources<</XObject<</F 3 0 R>>>>/Count 1/Kids[%s]>>", &kids)
	e := newEngine(t)
	if n := open(t, e, written(objects, map[int]int{3: 3}, len(objects))); n != pages {
		t.Fatalf("%d pages, want %d", n, pages)
	}
	for page := range pages {
		rgb := make([]byte, 20*10*3)
		if _, err := e.Draw(page, 20, 10, false, rgb); err != nil || at(rgb, 20, 5, 5) != red {
			t.Errorf("page %d: %v, %v", page+1, err, at(rgb, 20, 5, 5))
		}
	}
	if e.repairs != mostRepairs+1 {
		t.Errorf("%d repairs", e.repairs)
	}
}

// The table of objects ends before the first page, and the walk through the page
// tree finds that out.
func TestRepairWhileCounting(t *testing.T) {
	const pages = 1200 // more than a walk through four objects may visit
	objects := []string{"<</Type/Catalog/Pages 2 0 R>>", "", "<</Length 0>>\nstream\n\nendstream"}
	var kids strings.Builder
	for range pages {
		objects = append(objects, "<</Type/Page/Parent 2 0 R/Contents 3 0 R>>")
		fmt.Fprintf(&kids, "%d 0 R ", len(objects))
	}
	objects[1] = fmt.Sprintf("<</Type/Pages/MediaBox[0 0 200 100]/Count %d/Kids[%s]>>", pages, &kids)
	e := newEngine(t)
	if n := open(t, e, written(objects, map[int]int{4: 7}, 4)); n != pages {
		t.Errorf("%d pages, want %d", n, pages)
	}
}

// Where an offset leads out of all that a file can hold, MuPDF makes the table of
// objects anew, as it does where it leads out of this one.
func TestOffsetsBeyondAnyFile(t *testing.T) {
	data := pdftest.Simple("", pdftest.Page{Attrs: "/MediaBox[0 0 100 50]", Content: corners(0, 0)}).Bytes()
	start := bytes.Index(data, []byte("startxref\n"))
	for _, offset := range []string{"99999999999", "9223372036854775799", "9223372036854775807"} {
		for where, damaged := range map[string][]byte{
			"startxref": slices.Concat(data[:start], []byte("startxref\n"+offset+"\n%%EOF\n")),
			"Prev":      bytes.Replace(data, []byte("trailer\n<<"), []byte("trailer\n<</Prev "+offset), 1),
			"XRefStm":   bytes.Replace(data, []byte("trailer\n<<"), []byte("trailer\n<</XRefStm "+offset), 1),
		} {
			e := newEngine(t)
			if n, err := e.Open(file(t, damaged), PDF, nil); n != 1 || err != nil {
				t.Errorf("%s %s: %d pages, %v", where, offset, n, err)
			}
		}
	}
}

// The structure of a tagged document is not read for drawing, nor mended.
func TestStructureIsNotRead(t *testing.T) {
	const tagged = "/P <</MCID 0>> BDC 1 0 0 rg 0 0 200 100 re f EMC"
	e := newEngine(t)
	open(t, e, written([]string{
		"<</Type/Catalog/Pages 2 0 R/StructTreeRoot 5 0 R/MarkInfo<</Marked true>>>>",
		"<</Type/Pages/MediaBox[0 0 200 100]/Count 1/Kids[3 0 R]>>",
		"<</Type/Page/Parent 2 0 R/Contents 4 0 R/StructParents 0>>",
		fmt.Sprintf("<</Length %d>>\nstream\n%s\nendstream", len(tagged), tagged),
		"<</Type/StructTreeRoot/ParentTree 6 0 R>>",
		"<</Nums[0[5 0 R]]>>",
	}, map[int]int{6: 3}, 6))
	rgb := make([]byte, 20*10*3)
	if _, err := e.Draw(0, 20, 10, false, rgb); err != nil || at(rgb, 20, 5, 5) != red {
		t.Errorf("%v, %v", err, at(rgb, 20, 5, 5))
	}
	if e.tainted {
		t.Error("it led to a repair")
	}
}
