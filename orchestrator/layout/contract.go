package layout

import "time"

// The names of the tensors of the contract.
const (
	inputPages   = "pages"
	outputBoxes  = "boxes"
	outputScores = "scores"
	outputLabels = "labels"
)

// Contract is what a served layout model says about itself.
type Contract struct {
	// Model and Version name the model as served.
	Model, Version string
	// Width and Height are the raster that the model wants, in pixels; its
	// input is UINT8 [n,Height,Width,3], RGB.
	Width, Height int
	// MaxBatch is the most pages in one request, at least 1.
	MaxBatch int
	// Detections is the fixed number of boxes that come back for each page.
	Detections int
	// Labels are the model's words for its classes, by class index.
	Labels []string
	// ScoreThreshold is the score that a detection must exceed.
	ScoreThreshold float64
	// IoUThreshold is the overlap with a better box of its class that a box
	// must not exceed.
	IoUThreshold float64
	// MaxCandidates and MaxKept bound how many boxes of a class enter and
	// leave non-maximum suppression.
	MaxCandidates, MaxKept int
	// Batch, MaxAge and InFlight are the client-side settings that the served
	// config asks for; zero where it says nothing.
	Batch    int
	MaxAge   time.Duration
	InFlight int
	// Instances is how many copies of the model the server runs, at least 1.
	Instances int
}
