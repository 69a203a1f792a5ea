package bench

import (
	"fmt"
	"math"
)

// limit is what the whole could do at best.
func limit(kind LimitKind, cores int, rendering, server Stage) Limit {
	l := Limit{Kind: kind}
	switch kind {
	case LimitCores:
		l.PagesPerSecond = float64(cores) * 1000 / (rendering.CPU + server.CPU)
	case LimitRendering:
		l.PagesPerSecond = rendering.PagesPerSecond
	default:
		l.PagesPerSecond = min(rendering.PagesPerSecond, server.PagesPerSecond)
	}
	return l
}

// The shares from which on something counts as busy all the time, or as
// disturbing.
const (
	machineFull  = 0.94
	modelFull    = 0.90
	mostly       = 0.50
	disturbance  = 0.05 // of all cores
	workersTight = 0.85
)

// foreign is how many cores were kept busy by what is certainly not of the bench.
func (r *Result) foreign() float64 {
	if r.Model.Near {
		return r.Use.Stolen
	}
	return r.Use.Others + r.Use.Stolen
}

// bottleneck reads from what was busy what holds the whole up.
func bottleneck(r *Result) Bottleneck {
	u, s, cores := r.Use, r.Settings, float64(r.Machine.Cores)
	percent := func(share float64) string { return fmt.Sprintf("%.0f %%", 100*share) }
	busy := u.Ours + u.Others + u.Stolen
	full := busy/cores >= machineFull
	switch {
	case full && r.foreign()/cores > 2*disturbance:
		return Bottleneck{"others",
			fmt.Sprintf("The machine is full (%s), and %s of it is not quire's.", percent(busy/cores), percent(r.foreign()/busy)),
			"Measure again when nothing else runs here."}
	case full && r.Model.Near:
		return Bottleneck{"machine",
			fmt.Sprintf("The machine is full: %.2f of %d cores are busy, %.2f of them with quire's processes. The rest is the server's if it runs here, or other programs'.", busy, r.Machine.Cores, u.Ours),
			"Cheaper inference moves it, or more cores; if other programs run here, measure again without them."}
	case full:
		total := r.Parts.MuPDF + r.Parts.Own + r.Parts.Server + r.Parts.Model
		inference, drawing := (r.Parts.Server+r.Parts.Model)/total, r.Parts.MuPDF/total
		remedy := "More cores move it."
		if inference >= drawing && r.Model.Kind == KindLayout {
			remedy = "Cheaper inference moves it: a GPU behind --triton, quire.precision bf16 where the CPU has it; or more cores."
		}
		return Bottleneck{"machine",
			fmt.Sprintf("The machine is full: %.2f of %d cores are busy, %s of that with inference, %s with drawing.",
				busy, r.Machine.Cores, percent(inference), percent(drawing)),
			remedy}
	case u.Stalled >= mostly && u.Executing >= modelFull:
		return Bottleneck{"server",
			fmt.Sprintf("The model executes %s of the time, and drawn pages wait for it %s of the time.", percent(u.Executing), percent(u.Stalled)),
			"A faster device moves it, another instance where the device has room, or larger batches where they pay: quire tune tries them."}
	case u.Stalled >= mostly && s.Transport == "grpc" && u.Executing >= 0:
		return Bottleneck{"transport",
			fmt.Sprintf("Pages wait for the server %s of the time, and the model executes only %s of it: pages travel inside the requests.", percent(u.Stalled), percent(u.Executing)),
			"Shared memory moves it (a server on this machine, --transport auto), or a faster network."}
	case u.Stalled >= mostly && u.Full >= mostly && u.Executing >= 0:
		return Bottleneck{"window",
			fmt.Sprintf("Pages wait for the server %s of the time, and the model executes only %s of it: %d requests under way do not keep it busy.", percent(u.Stalled), percent(u.Executing), s.InFlight),
			fmt.Sprintf("Try --in-flight %d, or larger batches.", s.InFlight+1)}
	case u.Stalled >= mostly:
		return Bottleneck{"server",
			fmt.Sprintf("Drawn pages wait for the server %s of the time.", percent(u.Stalled)),
			"A faster server moves it, or --in-flight and --batch: quire tune tries them."}
	case u.Drawing >= workersTight:
		remedy := "More cores move it."
		if s.Workers < r.Machine.Cores {
			remedy = fmt.Sprintf("Try --workers %d, as many as there are cores.", r.Machine.Cores)
		}
		return Bottleneck{"rendering",
			fmt.Sprintf("The %d render workers draw %s of the time, and the server has no request %s of it.", s.Workers, percent(u.Drawing), percent(u.Starved)),
			remedy}
	}
	return Bottleneck{"none",
		fmt.Sprintf("Nothing is busy all the time: %.2f of %d cores, render workers %s, and pages wait for the server %s of the time.",
			busy, r.Machine.Cores, percent(u.Drawing), percent(u.Stalled)),
		"Longer windows (--min-time) tell more; where results are written may be slow."}
}

// perPage is milliseconds a page; 0 of no page.
func perPage(seconds float64, pages int) float64 {
	if pages == 0 {
		return 0
	}
	return seconds * 1000 / float64(pages)
}

// finite is x, or 0 for what JSON has no word for.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}
