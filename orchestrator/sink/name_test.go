package sink

import (
	"path"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestResultName(t *testing.T) {
	tests := []struct{ path, want string }{
		{"a.pdf", "a.pdf.json"},
		{"sub/dir/a.pdf", "sub/dir/a.pdf.json"},
		{"Größe 3.PDF", "Größe 3.PDF.json"},
		{"100%.pdf", "100%25.pdf.json"},
		{"a\xff.pdf", "a%FF.pdf.json"},
		{"a%FF.pdf", "a%25FF.pdf.json"},
		{"\xe2\x82/b.pdf", "%E2%82/b.pdf.json"},
		{"\uFFFD.pdf", "\uFFFD.pdf.json"},
		{"a\nb.pdf", "a\nb.pdf.json"},
		{"x.json/y", "x%2Ejson/y.json"},
		{"failed.jsonl/y", "failed%2Ejsonl/y.json"},
		{"x.JSON/y", "x.JSON/y.json"},
		{"x.pages/y", "x%2Epages/y.json"},
		{".pages/y", "%2Epages/y.json"},
		{"x.pages", "x.pages.json"},
		{"run", "%72un.json"},
		{"sub/run", "sub/run.json"},
		{".quire/y", "%2Equire/y.json"},
		{"sub/.quire/y", "sub/.quire/y.json"},
		{".quire", ".quire.json"},
		{strings.Repeat("a", 250), strings.Repeat("a", 250) + ".json"},
		{strings.Repeat("a", 300), strings.Repeat("a", 216) + "%~9835fa6bf4e20a9b9ea812506302e989.json"},
	}
	for _, tt := range tests {
		got, err := ResultName(tt.path)
		if err != nil {
			t.Errorf("%q: %v", tt.path, err)
		} else if got != tt.want {
			t.Errorf("%q is filed as %q, want %q", tt.path, got, tt.want)
		}
	}
	for _, bad := range []string{"", "/a", "a/", "a//b", "../a", "a/../b", ".", "./a", "a/.", "a\x00b"} {
		if got, err := ResultName(bad); err == nil {
			t.Errorf("%q is filed as %q, want an error", bad, got)
		}
	}
}

func TestPictureName(t *testing.T) {
	for _, tt := range []struct {
		path string
		page int
		want string
	}{
		{"a.pdf", 1, "a.pdf.pages/0001.png"},
		{"sub/a.pdf", 12345, "sub/a.pdf.pages/12345.png"},
		{"x.pages/a\xff", 7, "x%2Epages/a%FF.pages/0007.png"},
		{strings.Repeat("a", 250), 1, strings.Repeat("a", 215) + "%~3f3e35e0a775d9b1d5ec2eccca06381c.pages/0001.png"},
	} {
		if got, err := PictureName(tt.path, tt.page); err != nil || got != tt.want {
			t.Errorf("%q page %d is at %q (%v), want %q", tt.path, tt.page, got, err, tt.want)
		}
	}
	if got, err := PictureName("../a", 1); err == nil {
		t.Errorf("a picture outside: %q", got)
	}
}

// Inputs that could meet if names were made carelessly.
func TestResultNamesDoNotMeet(t *testing.T) {
	a := strings.Repeat("a", 400)
	paths := []string{
		"a\xff.pdf", "a%FF.pdf", "a%25FF.pdf", "a.pdf", "a.pdf.json/b", "a.pdf.json", "a.pdf%2Ejson/b",
		"run", "%72un", "run.json/x", "failed.jsonl/x", ".quire/x", "%2Equire/x", ".quire",
		"a.pdf.pages/0001.png", "a.pdf.pages/0001.png/b.pdf", "a.pdf%2Epages/b.pdf", "a.pdf.pages", "a.pdf.pages.pages", "a.pdf.pages.pages/0001",
		a + "1", a + "2", a + "1/x", strings.Repeat("\xff", 200), strings.Repeat("%", 200),
		strings.Repeat("ü", 200), strings.Repeat("ü", 200) + "b",
	}
	if short, err := ResultName(a + "1"); err != nil {
		t.Fatal(err)
	} else {
		paths = append(paths, strings.TrimSuffix(short, ".json")) // the cut name as an input of its own
	}
	// A name must be neither another's file nor a directory on its way.
	files := map[string]string{runName: "run.json", failuresName: "failed.jsonl", workDirectory: "the work directory"}
	dirs := map[string]string{workDirectory: "the work directory"}
	pictures := map[string]string{}
	for _, p := range paths {
		name, err := ResultName(p)
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if other, taken := files[name]; taken {
			t.Errorf("%q and %q are both filed as %q", p, other, name)
		}
		files[name] = p
		picture, err := PictureName(p, 1)
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		if other, taken := files[picture]; taken {
			t.Errorf("%q has its picture at %q, where %q is", p, picture, other)
		}
		files[picture] = "picture of " + p
		own := path.Dir(picture)
		if len(path.Base(own)) > maxName {
			t.Errorf("%q: %q is too long", p, own)
		}
		if other, taken := pictures[own]; taken {
			t.Errorf("%q and %q both have their pictures in %q", p, other, own)
		}
		pictures[own] = p
		parts := strings.Split(name, "/")
		for i := range parts {
			if len(parts[i]) > maxName || !utf8.ValidString(parts[i]) {
				t.Errorf("%q: element %q of its name has %d bytes", p, parts[i], len(parts[i]))
			}
			if i > 0 {
				dirs[strings.Join(parts[:i], "/")] = p
			}
		}
	}
	for d, p := range pictures {
		if other, taken := files[d]; taken {
			t.Errorf("%q holds the pictures of %q and is the file of %q", d, p, other)
		}
		if other, taken := dirs[d]; taken {
			t.Errorf("%q holds the pictures of %q and results like that of %q", d, p, other)
		}
	}
	for d, p := range dirs {
		if other, taken := files[d]; taken && d != workDirectory {
			t.Errorf("%q is the directory of %q and the result of %q", d, p, other)
		}
	}
}

func FuzzResultName(f *testing.F) {
	f.Add("a\xff.pdf", "a%FF.pdf")
	f.Add("run", "%72un")
	f.Add(strings.Repeat("é%", 100), strings.Repeat("é%", 100)+"x")
	f.Add("x.json/y", "x%2Ejson/y")
	f.Fuzz(func(t *testing.T, a, b string) {
		na, errA := ResultName(a)
		nb, errB := ResultName(b)
		if errA != nil || errB != nil {
			return
		}
		if (a == b) != (na == nb) {
			t.Fatalf("%q is filed as %q, %q as %q", a, na, b, nb)
		}
		pa, errA := PictureName(a, 1)
		pb, errB := PictureName(b, 1)
		if errA != nil || errB != nil || (a == b) != (pa == pb) {
			t.Fatalf("%q has its picture at %q (%v), %q at %q (%v)", a, pa, errA, b, pb, errB)
		}
		if pa == nb || strings.HasPrefix(nb, path.Dir(pa)+"/") || strings.HasPrefix(pa, nb+"/") || path.Dir(pa) == nb {
			t.Fatalf("%q has its picture at %q, %q its result at %q", a, pa, b, nb)
		}
		if strings.HasPrefix(nb, na+"/") {
			t.Fatalf("%q is filed as %q, which is a directory of %q", a, na, nb)
		}
		for part := range strings.SplitSeq(na, "/") {
			if part == "" || part == "." || part == ".." || len(part) > maxName || !utf8.ValidString(part) {
				t.Fatalf("%q is filed as %q", a, na)
			}
		}
	})
}
