package sink

import (
	"encoding/json"
	"fmt"
	"os"

	"quire/orchestrator"
)

// Schema names the format of a result. It changes only when a reader of the
// old one would misunderstand the new one; new keys do not change it.
const Schema = "quire/1"

// Document is the content of a result file.
type Document struct {
	Schema string `json:"schema"`
	Source Source `json:"source"`
	Model  Model  `json:"model"`
	// Status is done, partial (some pages failed) or failed.
	Status orchestrator.Status `json:"status"`
	// Error is there when the document as a whole failed.
	Error *Failure `json:"error,omitempty"`
	// PageCount is nil when the document would not open.
	PageCount *int `json:"page_count"`
	// BBoxUnit is "pt", 1/72 inch; BBoxOrigin is "top-left".
	BBoxUnit   string `json:"bbox_unit"`
	BBoxOrigin string `json:"bbox_origin"`
	// Pages holds every page of the document, in order.
	Pages []Page `json:"pages"`
}

// Source names the document that a result is of.
type Source struct {
	// Path is relative to the input root, with slashes.
	Path string `json:"path"`
	// PathEncoding is "percent" when the name is not UTF-8: then '%' and the
	// bytes that are not UTF-8 stand in Path as %XX. Otherwise it is empty.
	PathEncoding string `json:"path_encoding,omitempty"`
	// Size is the file's size in bytes.
	Size int64 `json:"size"`
}

// Model names the model that gave the result.
type Model struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest,omitempty"`
}

// Failure says why a page or a document failed.
type Failure struct {
	Stage    orchestrator.Stage    `json:"stage"`
	Category orchestrator.Category `json:"category"`
	Message  string                `json:"message"`
}

// Page is one page of a document.
type Page struct {
	// PageNo is 1-based.
	PageNo int                 `json:"page_no"`
	Status orchestrator.Status `json:"status"`
	Error  *Failure            `json:"error,omitempty"`
	// Geometry is nil when the page could not be loaded.
	Geometry *Geometry `json:"page"`
	// Image is nil when the page was not drawn.
	Image   *Image   `json:"image"`
	Regions []Region `json:"regions"`
}

// Geometry is the page as displayed; see [orchestrator.Geometry].
type Geometry struct {
	WidthPt  float64    `json:"width_pt"`
	HeightPt float64    `json:"height_pt"`
	Rotation int        `json:"rotation"`
	CropBox  [4]float64 `json:"crop_box"`
}

// Image is the raster that the model saw.
type Image struct {
	WidthPx  int `json:"width_px"`
	HeightPx int `json:"height_px"`
}

// Region is one thing found on a page; see [orchestrator.Region].
type Region struct {
	ID       int        `json:"id"`
	Label    string     `json:"label"`
	LabelRaw string     `json:"label_raw"`
	ClassID  int        `json:"class_id"`
	Score    float64    `json:"score"`
	BBox     [4]float64 `json:"bbox"`
	Order    int        `json:"order"`
}

// ReadDocument reads a result file. A long document is read whole.
func ReadDocument(name string) (*Document, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return parseDocument(name, data)
}

func parseDocument(name string, data []byte) (*Document, error) {
	d := new(Document)
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("%s is not a result: %w", name, err)
	}
	if d.Schema != Schema {
		return nil, fmt.Errorf("%s is not a result that this version reads: its schema is %q, wanted %q", name, d.Schema, Schema)
	}
	return d, nil
}
