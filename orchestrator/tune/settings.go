package tune

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Settings is one way to serve a model and to feed it: three fields of its
// config and three of quire's batcher. Both ends batch, one behind the other, so
// they are chosen together.
type Settings struct {
	// MaxBatch is max_batch_size: the most pages that the server executes at
	// once, and that a request may have.
	MaxBatch int
	// Instances is how many copies of the model run side by side: the count of
	// the instance group, on all its devices.
	Instances int
	// Delay is max_queue_delay_microseconds: how long the server lets a request
	// wait for others to fill a batch. Negative: there is no dynamic_batching,
	// and every request runs alone.
	Delay time.Duration
	// Batch is the most pages in a request of quire's, at most MaxBatch.
	Batch int
	// MaxAge is how long the first page of a request waits for others; 0: not
	// at all.
	MaxAge time.Duration
	// InFlight is the most requests at the server at once.
	InFlight int
}

// noBatcher is the Delay of a server that does not merge requests.
const noBatcher time.Duration = -1

// Field is one of the Settings.
type Field string

// The fields by the names that they have in a model's config.
const (
	FieldMaxBatch  Field = "max_batch_size"
	FieldInstances Field = "instance_group"
	FieldDelay     Field = "max_queue_delay_microseconds"
	FieldBatch     Field = "quire.batch"
	FieldMaxAge    Field = "quire.max_age_ms"
	FieldInFlight  Field = "quire.in_flight"
)

// Fields are all of them, the server's first.
func Fields() []Field {
	return []Field{FieldMaxBatch, FieldInstances, FieldDelay, FieldBatch, FieldMaxAge, FieldInFlight}
}

// ParseFields reads names separated by commas; short ones will do: "max_batch",
// "instances", "delay", "batch", "max_age", "in_flight".
func ParseFields(text string) ([]Field, error) {
	short := map[string]Field{
		"max_batch": FieldMaxBatch, "instances": FieldInstances, "delay": FieldDelay,
		"batch": FieldBatch, "max_age": FieldMaxAge, "in_flight": FieldInFlight,
	}
	var fields []Field
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		f, ok := short[word]
		if !ok {
			f = Field(word)
		}
		if !slices.Contains(Fields(), f) {
			return nil, fmt.Errorf("field %q: it is max_batch, instances, delay, batch, max_age or in_flight", word)
		}
		if !slices.Contains(fields, f) {
			fields = append(fields, f)
		}
	}
	return fields, nil
}

// changes are the fields in which t differs from s.
func (s Settings) changes(t Settings) []Field {
	var changed []Field
	for _, f := range Fields() {
		if s.with(t, f) != s {
			changed = append(changed, f)
		}
	}
	return changed
}

// with is s with one field of t.
func (s Settings) with(t Settings, f Field) Settings {
	switch f {
	case FieldMaxBatch:
		s.MaxBatch = t.MaxBatch
	case FieldInstances:
		s.Instances = t.Instances
	case FieldDelay:
		s.Delay = t.Delay
	case FieldBatch:
		s.Batch = t.Batch
	case FieldMaxAge:
		s.MaxAge = t.MaxAge
	case FieldInFlight:
		s.InFlight = t.InFlight
	}
	return s
}

// maxAge is MaxAge for the engine and its batcher, to which 0 is their default
// and a negative age none.
func (s Settings) maxAge() time.Duration { return cmp.Or(s.MaxAge, -1) }

// sameServer tells whether the server needs no change to go from s to t.
func (s Settings) sameServer(t Settings) bool {
	return s.MaxBatch == t.MaxBatch && s.Instances == t.Instances && s.Delay == t.Delay
}

// String is the settings in one line, in the words of the table.
func (s Settings) String() string {
	delay := "delay " + s.Delay.String()
	if s.Delay < 0 {
		delay = "no merging"
	}
	return fmt.Sprintf("max batch %d, instances %d, %s, batch %d, age %v, in flight %d",
		s.MaxBatch, s.Instances, delay, s.Batch, s.MaxAge, s.InFlight)
}

// MarshalJSON uses the names and units of the config.
func (s Settings) MarshalJSON() ([]byte, error) {
	var delay *int64
	if s.Delay >= 0 {
		us := s.Delay.Microseconds()
		delay = &us
	}
	return json.Marshal(struct {
		MaxBatch  int     `json:"max_batch_size"`
		Instances int     `json:"instances"`
		Delay     *int64  `json:"max_queue_delay_microseconds"` // null: no dynamic_batching
		Batch     int     `json:"batch"`
		MaxAge    float64 `json:"max_age_ms"`
		InFlight  int     `json:"in_flight"`
	}{s.MaxBatch, s.Instances, delay, s.Batch, float64(s.MaxAge) / float64(time.Millisecond), s.InFlight})
}

// simpler orders settings that do equally well: those that wait less, keep less
// under way and take less memory come first.
func simpler(a, b Settings) int {
	return cmp.Or(
		cmp.Compare(a.MaxBatch*a.Instances, b.MaxBatch*b.Instances),
		cmp.Compare(a.InFlight*a.Batch, b.InFlight*b.Batch),
		cmp.Compare(a.Delay, b.Delay),
		cmp.Compare(a.MaxAge, b.MaxAge),
	)
}
