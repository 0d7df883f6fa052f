package smoke

import (
	"fmt"
	"slices"
)

// Result is how a check ended.
type Result struct {
	// Suite is the name of its suite.
	Suite      string `json:"suite,omitempty"`
	Name       string `json:"name"`
	OK         bool   `json:"ok"`
	DurationMS int64  `json:"durationMs"`
	// Expected and Found say what was wrong. They hold no personal data.
	Expected string `json:"expected,omitempty"`
	Found    string `json:"found,omitempty"`
	// LeftOut is why the check was not made, which is no failure: another one is.
	LeftOut string `json:"leftOut,omitempty"`
}

func (r Result) failed() bool { return !r.OK && r.LeftOut == "" }

// Report is the outcome of a smoke test.
type Report struct {
	Environment string   `json:"environment,omitempty"`
	URL         string   `json:"url"`
	Service     string   `json:"service,omitempty"`
	Release     string   `json:"release,omitempty"`
	Passed      bool     `json:"passed"`
	Checks      []Result `json:"checks"`
	DurationMS  int64    `json:"durationMs"`
}

// Summary is the report in one sentence.
func (r Report) Summary() string {
	failed, leftOut := 0, 0
	for _, c := range r.Checks {
		if c.LeftOut != "" {
			leftOut++
		} else if !c.OK {
			failed++
		}
	}
	without := ""
	if leftOut > 0 {
		without = fmt.Sprintf(", %d left out", leftOut)
	}
	if failed == 0 {
		return fmt.Sprintf("All %d checks passed%s in %.1f s.", len(r.Checks)-leftOut, without, float64(r.DurationMS)/1000)
	}
	first := r.Checks[slices.IndexFunc(r.Checks, Result.failed)]
	return fmt.Sprintf("%d of %d checks failed%s. %s: expected %s, found %s.", failed, len(r.Checks), without, first.Name, first.Expected, first.Found)
}
