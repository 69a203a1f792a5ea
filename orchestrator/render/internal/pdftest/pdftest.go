// Package pdftest writes small PDF files for tests, by hand, so that each byte
// of an odd one is known.
package pdftest

import (
	"bytes"
	"compress/zlib"
	"crypto/md5"
	"crypto/rc4"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// File is a PDF file in the making. Objects are numbered from 1 in the order
// they are added; object 1 must be the catalog.
type File struct {
	objects []object
	// password, when hasPassword, encrypts strings and streams (RC4, 40 bits).
	password    string
	hasPassword bool
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
func (f *File) Encrypt(password string) { f.password, f.hasPassword = password, true }

// padding is the string of PDF 32000-1, 7.6.3.3, algorithm 2.
var padding = []byte("\x28\xBF\x4E\x5E\x4E\x75\x8A\x41\x64\x00\x4E\x56\xFF\xFA\x01\x08\x2E\x2E\x00\xB6\xD0\x68\x3E\x80\x2F\x0C\xA9\xFE\x64\x53\x69\x7A")

var fileID = []byte("quire test file.")

// key is algorithm 2 for revision 2; o is the owner entry.
func (f *File) key(o []byte) []byte {
	h := md5.New()
	h.Write(append([]byte(f.password), padding...)[:32])
	h.Write(o)
	binary.Write(h, binary.LittleEndian, int32(-4))
	h.Write(fileID)
	return h.Sum(nil)[:5]
}

func crypt(key, data []byte) []byte {
	c, err := rc4.NewCipher(key)
	if err != nil {
		panic(err) // a key of 5 to 10 bytes
	}
	out := make([]byte, len(data))
	c.XORKeyStream(out, data)
	return out
}

// Bytes returns the file.
func (f *File) Bytes() []byte {
	var out bytes.Buffer
	out.WriteString("%PDF-1.7\n")
	encrypt := ""
	var key []byte
	if f.hasPassword {
		// Algorithms 3 and 4: the owner's password is the user's.
		padded := append([]byte(f.password), padding...)[:32]
		owner := md5.Sum(padded)
		o := crypt(owner[:5], padded)
		key = f.key(o)
		u := crypt(key, padding)
		encrypt = fmt.Sprintf("/Encrypt <</Filter/Standard/V 1/R 2/P -4/O<%x>/U<%x>>>", o, u)
	}
	offsets := make([]int, len(f.objects))
	for i, o := range f.objects {
		offsets[i] = out.Len()
		if o.stream == nil {
			fmt.Fprintf(&out, "%d 0 obj\n%s\nendobj\n", i+1, o.body)
			continue
		}
		data := o.stream
		if f.hasPassword {
			n := i + 1
			sum := md5.Sum(append(append([]byte{}, key...), byte(n), byte(n>>8), byte(n>>16), 0, 0))
			data = crypt(sum[:10], data)
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

// Endless returns a file whose one page runs 2^depth operators by forms that
// call each other twice: at 40 it does not end in a lifetime.
func Endless(depth int) []byte {
	f := &File{}
	f.Add("<</Type/Catalog/Pages 2 0 R>>")
	f.Add("<</Type/Pages/Count 1/Kids[3 0 R]>>")
	f.Add("<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]/Contents 4 0 R/Resources<</XObject<</F 5 0 R>>>>>>")
	f.Stream("", []byte("/F Do"))
	for i := range depth {
		f.Stream(fmt.Sprintf("/Type/XObject/Subtype/Form/BBox[0 0 100 100]/Resources<</XObject<</F %d 0 R>>>>", 6+i), []byte("/F Do /F Do"))
	}
	f.Stream("/Type/XObject/Subtype/Form/BBox[0 0 100 100]", []byte("0 0 1 1 re f"))
	return f.Bytes()
}

// Bomb returns a file of less than a kilobyte whose one page holds a bi-level
// image of side×side pixels, which a JBIG2 decoder must hold as a whole.
func Bomb(side uint32) []byte {
	f := &File{}
	f.Add("<</Type/Catalog/Pages 2 0 R>>")
	f.Add("<</Type/Pages/Count 1/Kids[3 0 R]>>")
	f.Add("<</Type/Page/Parent 2 0 R/MediaBox[0 0 100 100]/Contents 4 0 R/Resources<</XObject<</I 5 0 R>>>>>>")
	f.Stream("", []byte("100 0 0 100 0 0 cm /I Do"))
	// One segment, page information (ITU-T T.88, 7.2 and 7.4.8).
	page := []byte{0, 0, 0, 0, 48, 0, 1, 0, 0, 0, 19}
	page = binary.BigEndian.AppendUint32(page, side)
	page = binary.BigEndian.AppendUint32(page, side)
	page = append(page, make([]byte, 11)...)
	f.Stream(fmt.Sprintf("/Type/XObject/Subtype/Image/Width %d/Height %d/BitsPerComponent 1/ColorSpace/DeviceGray/Filter/JBIG2Decode", side, side), page)
	return f.Bytes()
}
