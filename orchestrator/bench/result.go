package bench

import "time"

// Schema names the form of a Result as JSON. Fields are only ever added to it.
const Schema = "quire-bench/1"

// Result is what a bench found. Times a page are processor time in milliseconds
// unless they say otherwise, memory is in bytes, shares are 0 to 1.
type Result struct {
	Schema string `json:"schema"`
	// ToolVersion is quire's.
	ToolVersion string    `json:"tool_version"`
	Measured    time.Time `json:"measured"`
	Machine     Machine   `json:"machine"`
	Model       Model     `json:"model"`
	Settings    Settings  `json:"settings"`
	Set         Set       `json:"set"`

	// Rendering, Server and Whole are medians over Repeats.
	Rendering Stage `json:"rendering"`
	Server    Stage `json:"server"`
	Whole     Stage `json:"whole"`
	// Limit is what the whole is held against.
	Limit Limit `json:"limit"`
	// Fraction is Whole's rate over the limit's.
	Fraction float64 `json:"fraction"`
	// Stable tells whether the rates of the last three wholes are within 5 % of
	// each other; Spread is the largest over the smallest of them, or of as many
	// as there are, and 0 if one of them did no page.
	Stable bool    `json:"stable"`
	Spread float64 `json:"spread"`

	// Parts is where the whole's processor time went.
	Parts Parts `json:"parts"`
	// Use is what kept what busy during the wholes.
	Use        Use        `json:"use"`
	Bottleneck Bottleneck `json:"bottleneck"`
	// Batches are the executions that the server counted during the wholes, by
	// size.
	Batches Batches `json:"batches"`
	Memory  Memory  `json:"memory"`
	Events  Events  `json:"events"`
	// Warnings say why the numbers may be wrong.
	Warnings []string `json:"warnings"`

	Repeats []Repeat `json:"repeats"`
	// PerfAnalyzer is what NVIDIA's own tool measured of the server alone;
	// absent when it was not asked.
	PerfAnalyzer *PerfAnalyzer `json:"perf_analyzer,omitempty"`
}

// Machine is where it was measured.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
}

// Model is what answered.
type Model struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Kind is "layout", or for the models that compute nothing "instant" or
	// "gpu-like".
	Kind Kind `json:"kind"`
	// Server says where.
	Server string `json:"server"`
	// Ours tells whether quire started the server. Only then is its processor
	// time known.
	Ours bool `json:"ours"`
	// Near tells that a server that is not ours may run on this machine. Its
	// work then is among that of other programs.
	Near bool `json:"near"`
}

// Settings are those in force.
type Settings struct {
	Workers   int     `json:"workers"`
	Batch     int     `json:"batch"`
	InFlight  int     `json:"in_flight"`
	MaxAgeMS  float64 `json:"max_age_ms"`
	Instances int     `json:"instances"`
	// Transport is "shm" or "grpc".
	Transport string `json:"transport"`
	// WindowSeconds is how long each window is, about.
	WindowSeconds float64 `json:"window_seconds"`
}

// Set is the pages that are drawn over and over.
type Set struct {
	// Documents were chosen of Found, and have Pages pages.
	Found     int `json:"found"`
	Documents int `json:"documents"`
	Pages     int `json:"pages"`
}

// Stage is one stage's measure.
type Stage struct {
	PagesPerSecond float64 `json:"pages_per_second"`
	// CPU is processor time a page: of the render workers, of the server's
	// processes (0 when it is not ours), of all processes of the whole.
	CPU float64 `json:"cpu_ms_per_page"`
}

// Repeat is one round of windows.
type Repeat struct {
	Rendering Window `json:"rendering"`
	Server    Window `json:"server"`
	Whole     Window `json:"whole"`
}

// Window is one measurement.
type Window struct {
	Pages   int     `json:"pages"`
	Failed  int     `json:"failed"`
	Seconds float64 `json:"seconds"`
	// PagesPerSecond and CPU are as in Stage.
	PagesPerSecond float64 `json:"pages_per_second"`
	CPU            float64 `json:"cpu_ms_per_page"`
	// Others is how many cores programs that are not quire's kept busy, Stolen
	// how many other guests of the same host did; 0 where a CPU quota gives quire
	// fewer cores than it runs on.
	Others float64 `json:"others_cores"`
	Stolen float64 `json:"stolen_cores"`
	// RequestMS are wall times of requests in milliseconds; of the server's
	// windows only.
	RequestMS *Latency `json:"request_ms,omitempty"`
}

// Latency is some percentiles.
type Latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	// Count is of how many.
	Count int `json:"count"`
}

// LimitKind says what a limit is made of.
type LimitKind string

// The kinds of limit.
const (
	// LimitCores: cores ÷ (render + inference processor time a page). It is the
	// rate at which every core does nothing but draw and infer.
	LimitCores LimitKind = "cores"
	// LimitRendering: the rate of rendering alone, for a model that takes no
	// time.
	LimitRendering LimitKind = "rendering"
	// LimitSlower: the lower of the rates of rendering alone and of the server
	// alone, for a server that computes elsewhere.
	LimitSlower LimitKind = "slower stage"
)

// Limit is what could be achieved at best.
type Limit struct {
	Kind           LimitKind `json:"kind"`
	PagesPerSecond float64   `json:"pages_per_second"`
}

// Parts is processor time a page of the whole, by who took it.
type Parts struct {
	// MuPDF is the render workers' drawing, Workers what else they did.
	MuPDF   float64 `json:"mupdf_ms"`
	Workers float64 `json:"workers_ms"`
	// Quire is the process that does everything else, Guard the guard's.
	Quire float64 `json:"quire_ms"`
	Guard float64 `json:"guard_ms"`
	// Server is the tritonserver, Model the processes of its models; 0 when the
	// server is not ours.
	Server float64 `json:"tritonserver_ms"`
	Model  float64 `json:"model_ms"`
	// Own is quire's processes outside MuPDF: Workers, Quire and Guard.
	Own float64 `json:"quire_outside_mupdf_ms"`
}

// Use is what kept what busy.
type Use struct {
	// Ours, Others and Stolen are cores, on average over the time; the last two
	// as in Window.
	Ours   float64 `json:"ours_cores"`
	Others float64 `json:"others_cores"`
	Stolen float64 `json:"stolen_cores"`
	// Drawing is the share of their time that render workers were on a
	// processor.
	Drawing float64 `json:"drawing"`
	// Executing is the share of the time that an instance of the model was
	// executing, as the server counts; -1 when it did not tell.
	Executing float64 `json:"executing"`
	// Full is the share of the time that as many requests were at the server
	// as may be, Starved that none was, and Stalled that a drawn page waited
	// for a place in a batch.
	Full    float64 `json:"window_full"`
	Starved float64 `json:"server_starved"`
	Stalled float64 `json:"rendering_stalled"`
}

// Bottleneck is what holds the whole up.
type Bottleneck struct {
	// What is one of "machine", "rendering", "server", "transport", "window",
	// "others" and "none".
	What string `json:"what"`
	// Why and Remedy are sentences.
	Why    string `json:"why"`
	Remedy string `json:"remedy"`
}

// Batches are executions at the server.
type Batches struct {
	// Pages were asked for during the wholes.
	Pages int `json:"pages"`
	// Executed counts executions by size; nil when the server did not tell.
	Executed []Executed `json:"executed"`
}

// Executed is how often a batch of a size was executed.
type Executed struct {
	Size  int `json:"size"`
	Count int `json:"count"`
}

// Memory is physical memory of quire's processes without the server's: at most
// Peak at the same moment. Memory that they share counts once.
type Memory struct {
	Peak int64 `json:"peak_bytes"`
	// Quire, Workers (all of them) and Guard add up to it.
	Quire   int64 `json:"quire_bytes"`
	Workers int64 `json:"workers_bytes"`
	Guard   int64 `json:"guard_bytes"`
	// Bound is what quire promises for page buffers, which are part of Quire.
	Bound int64 `json:"page_buffers_bound_bytes"`
}

// Events is how quick this process was at what an event loop does, in
// milliseconds, while the whole ran.
type Events struct {
	// Tick is how late ticks of a timer of 1 ms were.
	Tick Latency `json:"tick_late_ms"`
	// Request is how long requests took that ask for the detector's counts.
	Request Latency `json:"request_ms"`
}

// PerfAnalyzer is NVIDIA's measure of the server alone.
type PerfAnalyzer struct {
	PagesPerSecond float64 `json:"pages_per_second"`
}
