package sink

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// Pictures keeps pictures of pages beside the results of a tree. Unlike the
// tree's own, its methods may be called from any goroutine, until the tree is
// closed. A picture is there whole or not at all; it can be made again, so it is
// not flushed.
type Pictures struct{ tree *Tree }

// Pictures gives a place for pictures in the tree.
func (t *Tree) Pictures() *Pictures { return &Pictures{tree: t} }

// Result reads the result of a document that has ended.
func (p *Pictures) Result(documentPath string) (*Document, error) {
	name, err := ResultName(documentPath)
	if err != nil {
		return nil, err
	}
	data, err := p.tree.root.ReadFile(name)
	if err != nil {
		return nil, p.tree.explain("read", name, err)
	}
	return parseDocument(name, data)
}

// Write puts the picture of a page (1-based) at [PictureName], in place of any
// other. While the disk is full it waits, as results do, unless ctx ends, and has
// the picture written once more then. A failure of write is its own cause.
func (p *Pictures) Write(ctx context.Context, documentPath string, page int, write func(io.Writer) error) error {
	name, err := PictureName(documentPath, page)
	if err != nil {
		return err
	}
	root := p.tree.root
	temp := path.Join(workDirectory, p.tree.tempName())
	err = p.tree.wait(ctx, func() error {
		f, err := root.create(temp)
		if err != nil {
			return err
		}
		err = errors.Join(write(f), f.Close())
		if err == nil {
			err = root.MkdirAll(path.Dir(name), 0o777)
		}
		if err == nil {
			err = root.rename(temp, name)
		}
		if err != nil {
			_ = root.Remove(temp)
		}
		return err
	})
	if err != nil {
		return p.tree.explain("write", name, err)
	}
	return nil
}

// Drawn tells whether the pictures of a document of so many pages are there and
// younger than its result. One that a power cut has left empty is not.
func (p *Pictures) Drawn(documentPath string, pages int) bool {
	name, err := ResultName(documentPath)
	if err != nil {
		return false
	}
	result, err := p.tree.root.Stat(name)
	if err != nil {
		return false
	}
	for page := pages; page > 0; page-- { // they are drawn in order, so the last is the likeliest to lack
		name, err := PictureName(documentPath, page)
		if err != nil {
			return false
		}
		picture, err := p.tree.root.Stat(name)
		if err != nil || !picture.Mode().IsRegular() || picture.Size() == 0 || picture.ModTime().Before(result.ModTime()) {
			return false
		}
	}
	return pages > 0
}

// Trim removes the pictures of pages after the last one, which an earlier run
// left when the document was longer, and with no page left their directory. What
// is not a picture by its name and place stays.
func (p *Pictures) Trim(documentPath string, pages int) error {
	root := p.tree.root
	first, err := PictureName(documentPath, 1)
	if err != nil {
		return err
	}
	dir := path.Dir(first)
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return nil // none are there
	}
	for _, e := range entries {
		page, err := strconv.Atoi(strings.TrimSuffix(e.Name(), path.Ext(first)))
		if err != nil || page <= pages || !e.Type().IsRegular() {
			continue
		}
		name, err := PictureName(documentPath, page)
		if err != nil || name != path.Join(dir, e.Name()) {
			continue
		}
		if err := root.remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return p.tree.explain("remove", name, err)
		}
	}
	if pages == 0 {
		_ = root.removeDir(dir) // not there, or not only ours
	}
	return nil
}
