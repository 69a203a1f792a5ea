// Package pdftest writes small PDF files for tests, by hand, so that each byte
// of an odd one is known.
package pdftest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// File is a PDF file in the making. Objects are numbered from 1 in the order
// they are added; object 1 must be the catalog.
type File struct {
	objects  []object
	security *security
}

type object struct {
	body   string
	stream []byte
}

// Add adds an object and returns its number.
func (f *File) Add(body string) int {
	f.objects = append(f.objects, object{body: body})
	return len(f.objects)
}

// Stream adds a stream object; dict is the inside of its dictionary without
// /Length.
func (f *File) Stream(dict string, data []byte) int {
	f.objects = append(f.objects, object{body: dict, stream: data})
	if data == nil {
		f.objects[len(f.objects)-1].stream = []byte{}
	}
	return len(f.objects)
}

// Encrypt makes the file one that opens with this user password only.
func (f *File) Encrypt(password string) { f.EncryptAs(RC4With40Bits, password, password) }

// EncryptAs makes the file one that opens with either password. An empty user
// password opens it for everyone. Strings are not encrypted, only streams: a
// file made here has none.
func (f *File) EncryptAs(way Encryption, user, owner string) {
	f.security = newSecurity(way, user, owner)
}

// Bytes returns the file.
func (f *File) Bytes() []byte {
	var out bytes.Buffer
	out.WriteString("%PDF-1.7\n")
	encrypt := ""
	if f.security != nil {
		encrypt = "/Encrypt " + f.security.dictionary
	}
	offsets := make([]int, len(f.objects))
	for i, o := range f.objects {
		offsets[i] = out.Len()
		if o.stream == nil {
			fmt.Fprintf(&out, "%d 0 obj\n%s\nendobj\n", i+1, o.body)
			continue
		}
		data := o.stream
		if f.security != nil {
			data = f.security.stream(i+1, data)
		}
		fmt.Fprintf(&out, "%d 0 obj\n<<%s/Length %d>>\nstream\n", i+1, o.body, len(data))
		out.Write(data)
		out.WriteString("\nendstream\nendobj\n")
	}
	xref := out.Len()
	fmt.Fprintf(&out, "xref\n0 %d\n0000000000 65535 f \n", len(f.objects)+1)
	for _, o := range offsets {
		fmt.Fprintf(&out, "%010d 00000 n \n", o)
	}
	id := hex.EncodeToString(fileID)
	fmt.Fprintf(&out, "trailer\n<</Size %d/Root 1 0 R/ID[<%s><%s>]%s>>\nstartxref\n%d\n%%%%EOF\n", len(f.objects)+1, id, id, encrypt, xref)
	return out.Bytes()
}

// Deflate compresses data for a stream with /Filter/FlateDecode.
func Deflate(data []byte) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// Page is one page of a Simple file.
type Page struct {
	// Attrs is the inside of the page's dictionary beside Type, Parent and
	// Contents: "/MediaBox[0 0 100 100]/Rotate 90".
	Attrs string
	// Content is the content stream.
	Content string
}

// Simple returns a file of these pages, objects 1 and 2 being the catalog and
// the page tree. extra is put into the catalog.
func Simple(extra string, pages ...Page) *File {
	f := &File{}
	f.Add("<</Type/Catalog/Pages 2 0 R" + extra + ">>")
	var kids strings.Builder
	for i := range pages {
		fmt.Fprintf(&kids, "%d 0 R ", 3+2*i)
	}
	f.Add(fmt.Sprintf("<</Type/Pages/Count %d/Kids[%s]>>", len(pages), kids.String()))
	for i, p := range pages {
		f.Add(fmt.Sprintf("<</Type/Page/Parent 2 0 R/Contents %d 0 R%s>>", 4+2*i, p.Attrs))
		f.Stream("", []byte(p.Content))
	}
	return f
}

// Many returns a file of so many pages, all red and 200×100 points, in a tree
// whose nodes have up to wide kids each.
func Many(pages, wide int) []byte {
	f := &File{}
	f.Add("<</Type/Catalog/Pages 2 0 R>>")
	f.Add("") // the root, when its kids are known
	content := f.Stream("", []byte("1 0 0 rg 0 0 200 100 re f"))
	type node struct{ object, pages int }
	var level []node
	for range pages {
		level = append(level, node{f.Add(fmt.Sprintf("<</Type/Page/Contents %d 0 R", content)), 1})
	}
	for level[0].object != 2 {
		var up []node
		for kids := range slices.Chunk(level, wide) {
			parent := node{object: 2}
			if len(level) > wide {
				parent.object = f.Add("")
			}
			var list strings.Builder
			for _, kid := range kids {
				parent.pages += kid.pages
				fmt.Fprintf(&list, "%d 0 R ", kid.object)
				f.objects[kid.object-1].body += fmt.Sprintf("/Parent %d 0 R>>", parent.object)
			}
			f.objects[parent.object-1].body = fmt.Sprintf("<</Type/Pages/MediaBox[0 0 200 100]/Count %d/Kids[%s]", parent.pages, list.String())
			up = append(up, parent)
		}
		level = up
	}
	f.objects[1].body += ">>"
	return f.Bytes()
}

// Endless returns a file whose first page runs 2^40 operators by forms that call
// each other twice, which does not end in a lifetime; more pages follow.
func Endless(more ...Page) []byte { return EndlessFile(more...).Bytes() }

// EndlessFile is Endless, in the making.
func EndlessFile(more ...Page) *File {
	form := 5 + 2*len(more) // the next object's number
	first := Page{Attrs: fmt.Sprintf("/MediaBox[0 0 200 100]/Resources<</XObject<</F %d 0 R>>>>", form), Content: "/F Do"}
	f := Simple("", append([]Page{first}, more...)...)
	for range 40 {
		form++
		f.Stream(fmt.Sprintf("/Type/XObject/Subtype/Form/BBox[0 0 100 100]/Resources<</XObject<</F %d 0 R>>>>", form), []byte("/F Do /F Do"))
	}
	f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 100 100]", []byte("0 0 1 1 re f"))
	return f
}

// Bomb returns a file of less than a kilobyte whose one page holds a bi-level
// image of side×side pixels, which a JBIG2 decoder must hold as a whole.
func Bomb(side uint32) []byte {
	f := Simple("", Page{Attrs: "/MediaBox[0 0 100 100]/Resources<</XObject<</I 5 0 R>>>>", Content: "100 0 0 100 0 0 cm /I Do"})
	// One segment, page information (ITU-T T.88, 7.2 and 7.4.8).
	page := []byte{0, 0, 0, 0, 48, 0, 1, 0, 0, 0, 19}
	page = binary.BigEndian.AppendUint32(page, side)
	page = binary.BigEndian.AppendUint32(page, side)
	page = append(page, make([]byte, 11)...)
	f.Stream(fmt.Sprintf("/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent 1/ColorSpace/DeviceGray/Filter/JBIG2Decode", side, side), page)
	return f.Bytes()
}
