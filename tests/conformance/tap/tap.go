// Package tap writes results in the Test Anything Protocol, version 13 (testanything.org).
//
// The validation programs import a library of this name that Debian does not package. These are the calls that they make.
package tap

import (
	"encoding/json"
	"fmt"
	"strings"
)

// T counts and writes the results of one program.
type T struct {
	count int
	todo  bool
}

// New starts a program without results.
func New() *T { return &T{} }

// Header begins the stream. A plan of 0 comes later, by AutoPlan.
func (t *T) Header(planned int) {
	fmt.Println("TAP version 13")
	if planned > 0 {
		fmt.Printf("1..%d\n", planned)
	}
}

// AutoPlan ends the stream by the number of results that there were.
func (t *T) AutoPlan() { fmt.Printf("1..%d\n", t.count) }

// Todo marks the next result as one that is known not to be good yet.
func (t *T) Todo() *T {
	t.todo = true
	return t
}

// Ok writes one result.
func (t *T) Ok(passed bool, description string) {
	t.count++
	word, mark := "ok", ""
	if !passed {
		word = "not ok"
	}
	if t.todo {
		mark, t.todo = " # TODO", false
	}
	fmt.Printf("%s %d -%s %s\n", word, t.count, mark, strings.ReplaceAll(description, "\n", " "))
}

// Pass writes a result that is good.
func (t *T) Pass(description string) { t.Ok(true, description) }

// Fail writes one that is not.
func (t *T) Fail(description string) { t.Ok(false, description) }

// Skip writes results that could not be had here.
func (t *T) Skip(count int, reason string) {
	for range make([]struct{}, count) {
		t.count++
		fmt.Printf("ok %d # SKIP %s\n", t.count, reason)
	}
}

// Diagnostic writes what is for people only.
func (t *T) Diagnostic(message string) {
	for _, line := range strings.Split(strings.TrimRight(message, "\n"), "\n") {
		fmt.Println("#", line)
	}
}

// Diagnosticf is Diagnostic with a format.
func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML writes what there is to know of the last result. JSON is YAML.
func (t *T) YAML(about interface{}) error {
	text, err := json.MarshalIndent(about, "  ", "  ")
	if err == nil {
		fmt.Printf("  ---\n  %s\n  ...\n", text)
	}
	return err
}
