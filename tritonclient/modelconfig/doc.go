// Package modelconfig edits a model's config.pbtxt as a careful person would:
// only the bytes that have to change do. Comments, order, spelling and fields
// that this program does not know stay as they are.
//
// A [File] is the text together with the message that it stands for. [File.Update]
// takes the message as it should be and returns the text for it:
//
//	file, err := modelconfig.Open("model_repository", "layout", "")
//	config := file.Config()
//	config.MaxBatchSize = 16
//	modelconfig.SetParameter(config, "quire.in_flight", "3")
//	edited, err := file.Update(config)
//	fmt.Print(file.Diff(edited))
//	backup, err := file.Replace(edited)
//
// Where the fields stand in the text is known from the parser of txtpbfmt; what
// the text means is decided by protobuf's own text-format parser alone. Update
// hands it the edited text and gives that back only if the message is the wanted
// one, so that a mistake here is an error and never another config.
package modelconfig
