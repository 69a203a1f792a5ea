package layout

// The words of docling's DocItemLabel that the known label sets map to.
const (
	labelText          = "text"
	labelSectionHeader = "section_header"
	labelPicture       = "picture"
	labelCaption       = "caption"
	labelTable         = "table"
	labelPageHeader    = "page_header"
	labelPageFooter    = "page_footer"
	labelReference     = "reference"
	labelFormula       = "formula"
)

// canonical gives the common word for a model's own label. The entries are the
// ten classes of CDLA (github.com/buptlihang/CDLA). CDLA marks titles of
// documents and of sections with one class, so both become section_header.
func canonical(raw string) string {
	switch raw {
	case "text":
		return labelText
	case "title":
		return labelSectionHeader
	case "figure":
		return labelPicture
	case "figure_caption", "table_caption":
		return labelCaption
	case "table":
		return labelTable
	case "header":
		return labelPageHeader
	case "footer":
		return labelPageFooter
	case "reference":
		return labelReference
	case "equation":
		return labelFormula
	}
	// A label that is not known here is still an answer; it keeps its word.
	return raw
}
