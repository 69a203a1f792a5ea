package sink

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

const (
	// maxName is the longest file name, in bytes, that Linux file systems
	// take (NAME_MAX).
	maxName = 255

	resultSuffix  = ".json"
	pictureSuffix = ".pages"
	failuresName  = "failed.jsonl"
	runName       = "run.json"
	workDirectory = ".quire"
)

// ResultName gives the place of a document's result, relative to the output
// directory and with slashes: the document's own path with ".json" after it.
//
// No two documents have the same. In names, '%' and bytes that are not UTF-8
// become %XX. So do single characters of names that would otherwise meet one of
// ours: the dot of a directory "x.json" or "x.pages", which may stand beside the
// result or the pictures of a document "x", and the first letters of
// OUT/run.json and OUT/.quire. A name
// that would be too long for the file system is cut and ends in "%~" and a hash
// of the whole name; "%~" appears in no other name.
func ResultName(documentPath string) (string, error) {
	return fileName(documentPath, resultSuffix)
}

// PictureName gives the place of the picture of a document's page (1-based),
// relative to the output directory and with slashes: OUT/sub/a.pdf.pages/0001.png
// for the first page of sub/a.pdf. The directory is that document's own: no
// result lies in it, and no other document's picture.
func PictureName(documentPath string, page int) (string, error) {
	dir, err := fileName(documentPath, pictureSuffix)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%04d.png", dir, page), nil
}

// fileName gives the place of what belongs to a document and ends in suffix.
func fileName(documentPath, suffix string) (string, error) {
	parts := strings.Split(documentPath, "/")
	for i, p := range parts {
		if p == "" || p == "." || p == ".." || strings.ContainsRune(p, 0) {
			return "", fmt.Errorf("document path %q does not lie below the input root", documentPath)
		}
		last := i == len(parts)-1
		if !last {
			parts[i] = part(p, "")
		} else {
			parts[i] = part(p, suffix)
		}
		if i > 0 {
			continue
		}
		if reserved := parts[0]; last && reserved == runName || !last && reserved == workDirectory {
			parts[0] = fmt.Sprintf("%%%02X%s", reserved[0], reserved[1:])
		}
	}
	return path.Join(parts...), nil
}

// part makes one element of a name: the last one, which has a suffix, or that of
// a directory.
func part(p, suffix string) string {
	name := escape(p)
	if suffix == "" {
		for _, ours := range []string{resultSuffix, path.Ext(failuresName), pictureSuffix} {
			if before, ok := strings.CutSuffix(name, ours); ok {
				name = before + "%2E" + ours[1:]
				break
			}
		}
	}
	if len(name)+len(suffix) > maxName {
		sum := sha256.Sum256([]byte(p))
		mark := "%~" + hex.EncodeToString(sum[:16])
		name = cut(name, maxName-len(suffix)-len(mark)) + mark
	}
	return name + suffix
}

// escape writes '%' and every byte that is not part of a UTF-8 character as
// %XX. It is injective, and the identity for names without either.
func escape(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == '%' || r == utf8.RuneError && size == 1 {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteString(s[i : i+size])
		}
		i += size
	}
	return b.String()
}

// cut shortens an escaped name to at most n bytes without splitting a
// character or an escape.
func cut(name string, n int) string {
	for n > 0 && !utf8.RuneStart(name[n]) {
		n--
	}
	if i := strings.LastIndexByte(name[:n], '%'); i >= 0 && i > n-3 {
		n = i
	}
	return name[:n]
}
