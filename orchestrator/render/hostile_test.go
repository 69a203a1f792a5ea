//go:build linux

package render

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quire/orchestrator"
	"quire/orchestrator/render/internal/pdftest"
)

// pngHead is a PNG that promises so many pixels and has none.
func pngHead(width, height uint32) []byte {
	b := []byte("\x89PNG\r\n\x1a\n")
	chunk := func(name string, data []byte) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
		all := append([]byte(name), data...)
		b = binary.BigEndian.AppendUint32(append(b, all...), crc32.ChecksumIEEE(all))
	}
	size := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, width), height)
	chunk("IHDR", append(size, 8, 2, 0, 0, 0))
	var data bytes.Buffer
	zlib.NewWriter(&data).Close()
	chunk("IDAT", data.Bytes())
	chunk("IEND", nil)
	return b
}

// tiffHead is a grey TIFF that promises so many pixels, followed by the
// directory at next.
func tiffHead(width, height, next uint32) []byte {
	b := []byte("II*\x00\x08\x00\x00\x00")
	entries := [][3]uint32{{256, 4, width}, {257, 4, height}, {258, 3, 8}, {259, 3, 1}, {262, 3, 1}, {273, 4, 8}, {277, 3, 1}, {278, 4, height}, {279, 4, 8}}
	b = binary.LittleEndian.AppendUint16(b, uint16(len(entries)))
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, uint16(e[0]))
		b = binary.LittleEndian.AppendUint16(b, uint16(e[1]))
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint32(b, e[2])
	}
	return binary.LittleEndian.AppendUint32(b, next)
}

const (
	done     = orchestrator.Category("")
	memory   = orchestrator.CategoryMemory
	timeout  = orchestrator.CategoryTimeout
	damaged  = orchestrator.CategoryMalformed
	noPages  = orchestrator.CategoryNoPages
	pageSize = orchestrator.CategoryPageSize
)

// wantOneOf opens a document and draws its first page. It fails unless that
// ends in one of these ways, the worker's memory stays within its limit, and a
// good document is drawn afterwards.
func wantOneOf(t *testing.T, w *worker, doc orchestrator.Document, ends ...orchestrator.Category) {
	t.Helper()
	_, err := w.Open(t.Context(), doc)
	if err == nil {
		_, _, err = w.Draw(t.Context(), 1)
	}
	category := done
	var e *orchestrator.PageError
	if errors.As(err, &e) {
		category = e.Category
	} else if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ends, category) {
		t.Errorf("%v, want one of %q", err, ends)
	}
	open(t, w, namedDocument(t, "good.pdf", pdftest.Simple("", plainPage(255, 0, 0)).Bytes()))
	wantColour(t, w, 1, 255, 0, 0)
	wantBounded(t, w)
}

// wantBounded fails if the worker's process has used more than MuPDF may and
// the rest of a process takes.
func wantBounded(t *testing.T, w *worker) {
	t.Helper()
	const rest = 64 << 20
	if used := peak(t, w.process.guarded.Pid()); used > w.pool.cfg.MemoryLimit+rest {
		t.Errorf("the worker used %d MB; its limit is %d", used>>20, w.pool.cfg.MemoryLimit>>20)
	}
}

func TestHostileOtherFormats(t *testing.T) {
	pool := newPool(t, Config{OtherFormats: true, MemoryLimit: 128 << 20, PageTimeout: time.Second, OpenTimeout: time.Second})
	deep := func(tag string) string {
		return strings.Repeat("<"+tag+">", 100_000) + "x" + strings.Repeat("</"+tag+">", 100_000)
	}
	type ends = []orchestrator.Category
	for _, c := range []struct {
		name string
		data []byte
		ends ends
	}{
		{"pixels.png", pngHead(100_000, 100_000), ends{damaged, memory}},
		{"pixels.gif", []byte("GIF89a\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\xff\xff\xff,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x02L\x01\x00;"), ends{damaged, memory}},
		{"pixels.tif", tiffHead(100_000, 100_000, 0), ends{damaged, memory}},
		{"loop.tif", tiffHead(8, 8, 8), ends{damaged, timeout}},
		{"inflates.cbz", zipped(t, entry{"1.png", strings.Repeat("\x00", 200<<20)}), ends{damaged, memory, pageSize}},
		{"self.svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="9" height="9"><g id="a"><use xlink:href="#a"/></g></svg>`), ends{done, damaged}},
		{"deep.svg", []byte(`<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">` + deep("g") + `</svg>`), ends{damaged}},
		{"deep.html", []byte("<html><body>" + deep("div") + "</body></html>"), ends{done, damaged, timeout}},
		{"deep.fb2", []byte(`<FictionBook xmlns="http://www.gribuser.ru/xml/fictionbook/2.0"><body>` + deep("section") + `</body></FictionBook>`), ends{damaged}},
		{"entities.xhtml", []byte(`<?xml version="1.0"?><!DOCTYPE html [<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><html><body>&c;</body></html>`), ends{done, damaged}},
		{"long.txt", bytes.Repeat([]byte("x"), 50<<20), ends{memory, timeout}},
		{"self.epub", zipped(t, entry{"mimetype", "application/epub+zip"},
			entry{"META-INF/container.xml", `<container><rootfiles><rootfile full-path="META-INF/container.xml"/></rootfiles></container>`}), ends{damaged, noPages}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantOneOf(t, newWorker(t, pool), namedDocument(t, c.name, c.data), c.ends...)
		})
	}
}

// peak is the most memory, in bytes, that a process has used so far.
func peak(t testing.TB, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb int64
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb << 10
}

// Each way to encrypt that there is, with each password that can be given.
func TestEncryption(t *testing.T) {
	workers := map[string]*worker{"": newWorker(t, newPool(t, Config{}))}
	for _, password := range []string{"wrong", "user", "owner"} {
		workers[password] = newWorker(t, newPool(t, Config{Passwords: []string{"nor this", password}}))
	}
	for name, way := range pdftest.Encryptions {
		for _, user := range []string{"user", ""} {
			f := pdftest.Simple("", plainPage(0, 0, 255))
			f.EncryptAs(way, user, "owner")
			doc := newDocument(t, f.Bytes())
			for password, w := range workers {
				if user == "" || password == "user" || password == "owner" {
					open(t, w, doc)
					wantColour(t, w, 1, 0, 0, 255)
					continue
				}
				_, err := w.Open(t.Context(), doc)
				if wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryEncrypted); t.Failed() {
					t.Fatalf("%s, user's password %q, given %q", name, user, password)
				}
			}
		}
	}
}

// A document of 100,000 pages, flat and as a tree, from its first page to its
// last.
func TestManyPages(t *testing.T) {
	const pages = 100_000
	w := newWorker(t, newPool(t, Config{MemoryLimit: 256 << 20}))
	for _, wide := range []int{pages, 10} {
		if n := open(t, w, newDocument(t, pdftest.Many(pages, wide))); n != pages {
			t.Fatalf("%d pages", n)
		}
		for page := 1; page <= pages; page += pages/50 - 1 {
			wantColour(t, w, page, 255, 0, 0)
		}
		wantColour(t, w, pages, 255, 0, 0)
	}
	wantBounded(t, w)
}

// endlessFile is a file of a terabyte that takes no room, and in which there is
// nothing to find.
func endlessFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, []byte("%PDF-1.7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<40); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHugeFile(t *testing.T) {
	w := newWorker(t, newPool(t, Config{OpenTimeout: 200 * time.Millisecond}))
	_, err := w.Open(t.Context(), fileDocument(endlessFile(t)))
	wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryTimeout)
	open(t, w, newDocument(t, endlessAndPlain()))
	wantColour(t, w, 2, 255, 0, 0)
	wantBounded(t, w)
}

// A file that is cut short while it is read: what is not there any more is
// read as its end, and nobody crashes.
func TestCutShortWhileItIsRead(t *testing.T) {
	w := newWorker(t, newPool(t, Config{OpenTimeout: -1}))
	process := w.process.guarded
	path := endlessFile(t)
	failed := make(chan error, 1)
	go func() {
		_, err := w.Open(context.Background(), fileDocument(path))
		failed <- err
	}()
	working(t, process.Pid())
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	wantError(t, <-failed, orchestrator.StageOpen, 0, orchestrator.CategoryChanged)
	open(t, w, newDocument(t, endlessAndPlain()))
	wantColour(t, w, 2, 255, 0, 0)
	if w.process.guarded != process {
		t.Error("the process was replaced")
	}
}

// A file that cannot be read, which one opened for writing stands for.
func TestReadError(t *testing.T) {
	w := newWorker(t, newPool(t, Config{}))
	path := filepath.Join(t.TempDir(), "a.pdf")
	if err := os.WriteFile(path, endlessAndPlain(), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := w.Open(t.Context(), orchestrator.Document{Path: "in/a.pdf", Open: func() (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY, 0)
	}})
	wantError(t, err, orchestrator.StageOpen, 0, orchestrator.CategoryUnreadable)
	open(t, w, fileDocument(path))
	wantColour(t, w, 2, 255, 0, 0)
}
