package tune

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"quire/tritonclient"
	"quire/tritonclient/inferencepb"
	"quire/tritonclient/modelconfig"
)

// The parameters of a model that is served for a trial. They live in the server,
// beside what they are about, so that whoever finds them can put it back.
const (
	keyOriginal = "quire.tune.original" // the config before, as JSON
	keyBy       = "quire.tune.by"       // a Note, as JSON
	// keyTrial counts the trials. Where nothing but the count of instances has
	// changed, Triton keeps those that it has, and one that shares the processors
	// with others goes on with the share that it had when it was loaded.
	keyTrial = "quire.tune.trial"
)

// Note says who serves a model for a trial.
type Note struct {
	// Host and Pid are the process.
	Host string `json:"host"`
	Pid  int    `json:"pid"`
	// Life tells the process from another one that has its number later, on its
	// own host only.
	Life string `json:"life"`
	// Began is when it began, and Until when it will have ended if it lives.
	Began time.Time `json:"began"`
	Until time.Time `json:"until"`
}

// grace is how long after the end of its time a search may still be at work.
const grace = 5 * time.Minute

// newNote is this process's.
func newNote(now time.Time, budget time.Duration) Note {
	host, _ := os.Hostname()
	return Note{Host: host, Pid: os.Getpid(), Life: processLife(os.Getpid()), Began: now.UTC().Truncate(time.Second), Until: now.Add(budget + grace).UTC().Truncate(time.Second)}
}

// String is who and when, in words.
func (n Note) String() string {
	return fmt.Sprintf("process %d on %s, since %s", n.Pid, n.Host, n.Began.Format(time.RFC3339))
}

// alive tells whether that process may still be at work.
func (n Note) alive(now time.Time) bool {
	if here := numbering(); here != "" && strings.HasPrefix(n.Life, here) {
		return processLife(n.Pid) == n.Life
	}
	// Nobody here can tell, but by then it has ended.
	return now.Before(n.Until)
}

// numbering names what process numbers are unique in: a start of the machine,
// and a namespace in it.
func numbering() string {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(boot)) + " " + namespace + " "
}

// processLife is what tells a process from every other one; empty when there is
// none with the number.
func processLife(pid int) string {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// See proc_pid_stat(5): the name in parentheses may hold anything; the
	// start time is field 22.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	const state, start = 0, 19
	if len(fields) <= start || fields[state] == "Z" {
		return ""
	}
	return numbering() + fields[start]
}

// noted adds the note to a config that is about to be served for a trial, the
// trial-th of this search.
func noted(config, original *inferencepb.ModelConfig, n Note, trial int) error {
	was, err := protojson.Marshal(original)
	if err != nil {
		return err
	}
	by, err := json.Marshal(n)
	if err != nil {
		return err
	}
	modelconfig.SetParameter(config, keyOriginal, string(was))
	modelconfig.SetParameter(config, keyBy, string(by))
	modelconfig.SetParameter(config, keyTrial, strconv.Itoa(trial))
	return nil
}

// Leftover is a model that a search serves, or has left served, for a trial.
type Leftover struct {
	Note Note
	// Alive tells that the search may still be at work. On another host that
	// is so until its time is over.
	Alive bool

	original *inferencepb.ModelConfig
}

// Find looks whether a model is served for a trial; nil when it is not.
func Find(ctx context.Context, client *tritonclient.Client, model string) (*Leftover, error) {
	config, err := client.ModelConfig(ctx, model, "")
	if err != nil {
		return nil, err
	}
	return leftover(config)
}

func leftover(config *inferencepb.ModelConfig) (*Leftover, error) {
	was, by := config.GetParameters()[keyOriginal].GetStringValue(), config.GetParameters()[keyBy].GetStringValue()
	if was == "" && by == "" {
		return nil, nil
	}
	l := &Leftover{original: new(inferencepb.ModelConfig)}
	err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal([]byte(was), l.original)
	if err == nil {
		err = json.Unmarshal([]byte(by), &l.Note)
	}
	if err != nil || l.original.GetName() == "" {
		return nil, fmt.Errorf("the served config of %s has a note of quire tune that cannot be read (%s is %s): load the model anew, after unloading it",
			config.GetName(), keyBy, strconv.Quote(by))
	}
	l.Alive = l.Note.alive(time.Now())
	return l, nil
}

// ErrReplaced is what [Leftover.Repair] and [Server.Restore] return when
// somebody else has loaded the model with another config meanwhile. It is left
// as it is.
var ErrReplaced = errors.New("the model was loaded with another config meanwhile, and is left with it")

// Repair puts the model back to the config that the note holds.
func (l *Leftover) Repair(ctx context.Context, client *tritonclient.Client) error {
	return putBack(ctx, client, l.original, l.Note, false)
}

// putBack serves a model as it was before a search, if what is served is still
// a trial of that search. With pending it may become one any moment, so that the
// original is loaded, behind that, also when it is served.
//
// It is done by loading the original config in the place of the trial's, and not
// by unloading the model, which would leave the server without it for as long as
// it takes to load, and for good should it not load. What remains is that a load
// request finds nothing to do until a file of the model has changed; then it
// takes the file, as without the search.
func putBack(ctx context.Context, client *tritonclient.Client, original *inferencepb.ModelConfig, n Note, pending bool) error {
	model := original.GetName()
	served, err := client.ModelConfig(ctx, model, "")
	if err != nil {
		return err
	}
	if same := proto.Equal(served, original); same && !pending {
		return nil
	} else if now, err := leftover(served); !same && (err != nil || now == nil || now.Note != n) {
		return fmt.Errorf("model %s: %w", model, ErrReplaced)
	}
	override, err := protojson.Marshal(original)
	if err != nil {
		return err
	}
	if err := client.LoadModel(ctx, model, override); err != nil {
		return err
	}
	if served, err = client.ModelConfig(ctx, model, ""); err != nil {
		return err
	}
	if !proto.Equal(served, original) {
		return fmt.Errorf("model %s was loaded with the config that it had, and the server serves another", model)
	}
	return nil
}
