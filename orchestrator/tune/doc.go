// Package tune finds better batch settings for a served model, by measuring.
//
// [Search] decides what to measure and what follows from it; it knows the server
// only as a [Bench], and is tested against simulated ones.
package tune
