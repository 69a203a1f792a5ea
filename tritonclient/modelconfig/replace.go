package modelconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrChanged is what [File.Replace] returns when the file is no longer what it
// was when it was read.
var ErrChanged = errors.New("the config was changed meanwhile: look at it and try again")

// ErrReadOnly is what [File.Replace] returns when the model repository must not
// be written to.
var ErrReadOnly = errors.New("the model repository cannot be written to: make the change where the repository is kept")

// Open reads the config that a server takes for a model of a repository:
// configs/NAME.pbtxt of the model if name is not empty and there is that file, as
// with --model-config-name, else config.pbtxt.
func Open(repository, model, name string) (*File, error) {
	for _, part := range []string{model, name} {
		if part != "" && (part != filepath.Base(part) || !filepath.IsLocal(part)) {
			return nil, fmt.Errorf("%q is not the name of a model or a config", part)
		}
	}
	root, err := filepath.EvalSymlinks(repository)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(root, model, "config.pbtxt")
	if name != "" {
		custom := filepath.Join(root, model, "configs", name+".pbtxt")
		if _, err := os.Stat(custom); err == nil {
			path = custom
		}
	}
	// An editor that replaces a link by a file would leave what it points to as
	// it was.
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.path, f.repository = path, root
	return f, nil
}

// Replace puts the text of edited, which an Update of f returned, in the place of
// f's on disk, and returns the file that f's text is kept in. A server sees the
// old file or the new one, and one change: one that polls its repository looks at
// the times of everything in a model's directory, so what is written before, and
// what stays as the backup, lies beside the models and not among their files.
//
// The error is ErrChanged or ErrReadOnly where it says so. After an error without
// a backup nothing has changed.
func (f *File) Replace(edited *File) (backup string, err error) {
	if f.path == "" || edited.path != f.path {
		return "", errors.New("modelconfig: these are not two texts of one file")
	}
	defer func() {
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			err = fmt.Errorf("%w: %w", err, ErrReadOnly)
		}
	}()
	info, err := os.Stat(f.path)
	if err != nil {
		return "", err
	}
	if info.Mode()&0o222 == 0 {
		return "", fmt.Errorf("%s is write-protected: %w", f.path, ErrReadOnly)
	}
	if err := f.unchanged(); err != nil {
		return "", err
	}
	name, err := filepath.Rel(f.repository, f.path)
	dir := f.repository
	if err != nil || !filepath.IsLocal(name) { // a link led out of the repository
		dir, name = filepath.Split(f.path)
	}
	name = strings.ReplaceAll(name, string(filepath.Separator), "-")
	backup = filepath.Join(dir, fmt.Sprintf("%s.%s.bak", name, time.Now().Format("20060102-150405.000")))
	if err := write(backup, f.text, info); err != nil {
		return "", err
	}
	temp := filepath.Join(dir, fmt.Sprintf(".%s.%d.tmp", name, time.Now().UnixNano()))
	err = write(temp, edited.text, info)
	if err == nil {
		if err = f.unchanged(); err == nil {
			err = os.Rename(temp, f.path)
		}
		if err != nil {
			_ = os.Remove(temp)
		}
	}
	if err != nil {
		_ = os.Remove(backup)
		return "", err
	}
	// The change is made; that it outlives a power failure is the last to do.
	return backup, errors.Join(syncDir(dir), syncDir(filepath.Dir(f.path)))
}

// unchanged fails if the file is not what was read.
func (f *File) unchanged() error {
	now, err := os.ReadFile(f.path)
	if err == nil && string(now) != f.text {
		err = fmt.Errorf("%s: %w", f.path, ErrChanged)
	}
	return err
}

// write makes a file with the mode and the owner of another one, and waits for
// the disk. There is no file after an error.
func write(path, text string, like fs.FileInfo) (err error) {
	w, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, like.Mode().Perm())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	_, err = w.WriteString(text)
	err = errors.Join(err, w.Chmod(like.Mode().Perm()))
	if owner, ok := like.Sys().(*syscall.Stat_t); ok {
		// Whoever may not give a file away keeps it; the server can read it as
		// before unless only the owner could.
		if chown := w.Chown(int(owner.Uid), int(owner.Gid)); chown != nil && like.Mode()&0o004 == 0 {
			err = errors.Join(err, chown)
		}
	}
	return errors.Join(err, w.Sync(), w.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
