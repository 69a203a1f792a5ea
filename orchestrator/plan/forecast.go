package plan

import "cmp"

// Forecast is everything that a plan says; what is not known is nil.
type Forecast struct {
	Inputs Inputs
	// Rate is the last measurement of the place that the run would use, and
	// Where that place.
	Rate  *Rate
	Where string
	// Output is where the results would go, empty when that was not said, and
	// Free the space there, in bytes for this user.
	Output string
	Free   *int64
}

// DefaultBytesPerPage is the size of results where no run has measured it: what
// the pages of examples/ and of the documents in docs/corpus.md have, rounded
// up. A page of a dense paper has twice that, a blank one a tenth.
const DefaultBytesPerPage = 1500

// DocumentBytes is what a result takes on the disk beside its bytes: the rest
// of its last block.
const DocumentBytes = 4 << 10

// Results is about how many bytes the results take.
func (f Forecast) Results() int64 {
	perPage := float64(DefaultBytesPerPage)
	if f.Rate != nil {
		perPage = cmp.Or(f.Rate.BytesPerPage(), perPage)
	}
	return int64(perPage*float64(f.Inputs.Pages.Pages)) + f.Inputs.Documents*DocumentBytes
}

// Fits tells whether the results fit into the space that there is, as far as
// one can tell.
func (f Forecast) Fits() bool {
	return f.Free == nil || !f.Inputs.Pages.Known() || f.Results() <= *f.Free
}

// Problems tells whether a run would meet any: inputs that do not open, or too
// little space.
func (f Forecast) Problems() bool { return f.Inputs.Problems() > 0 || !f.Fits() }
