package endtoend

import (
	"context"
	"fmt"
	"image"
	"log"
	"os"
	"slices"

	"quire/orchestrator"
	"quire/orchestrator/layout"
	"quire/orchestrator/render"
	"quire/orchestrator/sink"
	"quire/orchestrator/walk"
	"quire/tritonclient"
	"quire/tritonclient/guard"
)

// detect prints what stands on the first page of a document, in reading order.
func detect(ctx context.Context, triton, pdf string) error {
	g, err := guard.Start(ctx, guard.Config{})
	if err != nil {
		return err
	}
	defer g.Close()
	client, err := tritonclient.New(triton, tritonclient.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	model, err := layout.Open(ctx, client, layout.Config{SharedMemoryPrefix: g.ShmPrefix()})
	if err != nil {
		return err
	}
	defer model.Close()
	detector, err := orchestrator.New(orchestrator.Config{
		Model:              model,
		Renderer:           render.New(render.Config{Guard: g}),
		SharedMemoryPrefix: g.ShmPrefix(),
	})
	if err != nil {
		return err
	}
	defer detector.Close()

	page, err := detector.Detect(ctx, pdf, 1)
	if err != nil {
		return err
	}
	slices.SortFunc(page.Regions, func(a, b orchestrator.Region) int { return a.Order - b.Order })
	for _, r := range page.Regions {
		fmt.Printf("%s %.0f\n", r.Label, r.BBox)
	}
	return nil
}

// One page at a time. Calls from many goroutines share batches.
func Example_detect() {
	if err := detect(context.Background(), theServer.Addr(), examples+"/slides.pdf"); err != nil {
		log.Fatal(err)
	}
	// Output:
	// section_header [65 148 693 250]
	// text [70 303 846 379]
}

// Pictures that are in memory already; boxes are in pixels of each. Nothing has
// to be rendered, so there is no Renderer.
func Example_images() {
	ctx := context.Background()
	client, err := tritonclient.New(theServer.Addr(), tritonclient.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	model, err := layout.Open(ctx, client, layout.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	detector, err := orchestrator.New(orchestrator.Config{Model: model})
	if err != nil {
		log.Fatal(err)
	}
	defer detector.Close()

	blank := image.NewRGBA(image.Rect(0, 0, 1000, 1400)) // transparent, which is white here
	results, err := detector.DetectBatch(ctx, []image.Image{blank, blank, blank})
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range results {
		fmt.Println(r.Status, len(r.Regions))
	}
	// Output:
	// done 0
	// done 0
	// done 0
}

// A whole directory into a tree of results, as quire run does it.
func Example_run() {
	ctx := context.Background()
	client, err := tritonclient.New(theServer.Addr(), tritonclient.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	model, err := layout.Open(ctx, client, layout.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	detector, err := orchestrator.New(orchestrator.Config{Model: model, Renderer: render.New(render.Config{Guard: theGuard})})
	if err != nil {
		log.Fatal(err)
	}
	defer detector.Close()

	out, err := os.MkdirTemp("", "quire")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(out)
	documents, err := walk.New([]string{examples}, walk.Config{Include: []string{"s*.pdf"}})
	if err != nil {
		log.Fatal(err)
	}
	defer documents.Close()
	tree, err := sink.Open(sink.Config{Dir: out, Tool: "example", ToolVersion: "1"})
	if err != nil {
		log.Fatal(err)
	}
	defer tree.Close()
	if err := tree.Start(ctx, model.Info(), nil); err != nil {
		log.Fatal(err)
	}
	summary, err := detector.Run(ctx, orchestrator.Job{Source: documents, Sink: tree})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tree.Finish(ctx, summary, nil, nil); err != nil { // failed.jsonl
		log.Fatal(err)
	}
	fmt.Printf("%d documents, %d pages\n", summary.Documents.Done, summary.Pages.Done)
	// Output:
	// 2 documents, 4 pages
}
