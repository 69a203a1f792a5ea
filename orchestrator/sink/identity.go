package sink

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"quire/orchestrator"
)

// identity is what a result depends on, but for the document's path.
type identity struct {
	// Size and ModTime are the file's. Sum is a digest of its content; with
	// one on both sides the time says nothing.
	Size    int64  `json:"size"`
	ModTime string `json:"mtime"`
	Sum     string `json:"sum,omitempty"`
	// Model and Options are digests of what run.json spells out; ModelSum is the
	// model's own. With one on one side only, it says nothing: a server does
	// not tell.
	Model    string `json:"model"`
	ModelSum string `json:"model_sum,omitempty"`
	Options  string `json:"options"`
}

// changed tells why what was made under was has to be made again; empty when
// it does not.
func (is identity) changed(was identity) orchestrator.Redone {
	same := is.ModTime == was.ModTime
	if is.Sum != "" && was.Sum != "" {
		same = is.Sum == was.Sum
	}
	switch {
	case is.Size != was.Size || !same:
		return orchestrator.RedoneInput
	case is.Model != was.Model || is.ModelSum != "" && was.ModelSum != "" && is.ModelSum != was.ModelSum:
		return orchestrator.RedoneModel
	case is.Options != was.Options:
		return orchestrator.RedoneOptions
	}
	return ""
}

// over is the identity of what was made under was and stands: what cannot be told
// now holds as it was told then.
func (is identity) over(was identity) identity {
	is.Sum, is.ModelSum = cmp.Or(is.Sum, was.Sum), cmp.Or(is.ModelSum, was.ModelSum)
	return is
}

func (t *Tree) identityOf(doc orchestrator.Document) identity {
	id := identity{Size: doc.Size, Sum: doc.Sum, Model: t.modelSum, ModelSum: t.model.Digest, Options: t.optionsSum}
	if !doc.ModTime.IsZero() {
		id.ModTime = doc.ModTime.UTC().Format(time.RFC3339Nano)
	}
	return id
}

// digest names a value that encoding/json can write.
func digest(of any) (string, error) {
	data, err := json.Marshal(of)
	if err != nil {
		return "", fmt.Errorf("options of this run cannot be written down: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}
