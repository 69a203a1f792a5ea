package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Rate is how fast a run went and how large its results were: what the next
// plan reckons with.
type Rate struct {
	// Where tells what answered: "embedded", or a server's address.
	Where string `json:"where"`
	// Host is the machine that drew the pages.
	Host string `json:"host"`
	// Model and ModelVersion name the served model.
	Model        string `json:"model"`
	ModelVersion string `json:"model_version"`
	// Pages ended in Seconds, done or failed.
	Pages   int64   `json:"pages"`
	Seconds float64 `json:"seconds"`
	// ResultBytes is the size of the results of those pages, in ResultDocuments
	// files.
	ResultDocuments int64 `json:"result_documents"`
	ResultBytes     int64 `json:"result_bytes"`
	// Measured is when the run ended.
	Measured time.Time `json:"measured"`
}

// PagesPerSecond is the rate itself.
func (r Rate) PagesPerSecond() float64 { return float64(r.Pages) / r.Seconds }

// BytesPerPage is the size of results.
func (r Rate) BytesPerPage() float64 { return float64(r.ResultBytes) / float64(r.Pages) }

func (r Rate) usable() bool { return r.Pages > 0 && r.Seconds > 0 && r.ResultBytes >= 0 }

// Rates is a directory with one small file for each place and model that was
// measured, the last measurement in each.
type Rates struct{ Dir string }

// enoughPages is how many pages make a measurement that one of fewer pages does
// not take the place of: the first pages of a run are slower than the rest.
const enoughPages = 200

// Record keeps a measurement. One that says nothing (no pages, no time), or
// less than the one that is there, is dropped.
func (s Rates) Record(r Rate) error {
	if !r.usable() {
		return nil
	}
	sum := sha256.Sum256([]byte(r.Where + "\x00" + r.Host + "\x00" + r.Model + "\x00" + r.ModelVersion))
	name := filepath.Join(s.Dir, hex.EncodeToString(sum[:8])+".json")
	if old, err := read(name); err == nil && r.Pages < enoughPages && old.Pages > r.Pages {
		return nil
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o777); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.Dir, ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// Last returns the latest measurement of a place as this host sees it, with
// whatever model; ok is false when there is none.
func (s Rates) Last(where, host string) (last Rate, ok bool) {
	names, err := filepath.Glob(filepath.Join(s.Dir, "*.json"))
	if err != nil {
		return Rate{}, false
	}
	for _, name := range names {
		r, err := read(name)
		if err != nil || r.Where != where || r.Host != host {
			continue // a file that is damaged is as good as none
		}
		if !ok || r.Measured.After(last.Measured) {
			last, ok = r, true
		}
	}
	return last, ok
}

func read(name string) (Rate, error) {
	var r Rate
	data, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(data, &r)
	}
	if err == nil && !r.usable() {
		err = fmt.Errorf("%s: no measurement", name)
	}
	return r, err
}

// Time is how long so many pages take at the rate.
func (r Rate) Time(pages int64) time.Duration {
	return time.Duration(float64(pages) / r.PagesPerSecond() * float64(time.Second))
}
