package smoke

import (
	"bytes"
	"encoding/xml"
	"errors"
	"strings"
	"testing"
)

func TestJUnit(t *testing.T) {
	t.Parallel()
	r := Report{URL: "http://127.0.0.1:8080", Checks: []Result{
		{Suite: "platform", Name: `<up> & "well"`, OK: true, DurationMS: 1234},
		{Suite: "platform", Name: "read", Expected: `$.status "UP" <1>`, Found: "status 500\x00 & \n more", DurationMS: 6},
		{Suite: "platform", Name: "write", LeftOut: "it needs that read"},
		{Suite: "school", Name: "own", OK: true, DurationMS: 2},
	}}
	var b bytes.Buffer
	if err := WriteJUnit(&b, r); err != nil {
		t.Fatal(err)
	}
	var got junitSuites
	if err := xml.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, b.String())
	}
	if len(got.Suites) != 2 || got.Suites[0].Name != "platform" || got.Suites[1].Name != "school" {
		t.Fatalf("%s", b.String())
	}
	first := got.Suites[0]
	if first.Tests != 3 || first.Failures != 1 || first.Skipped != 1 || first.Time != "1.240" || first.Cases[0].Name != `<up> & "well"` || first.Cases[0].Time != "1.234" {
		t.Errorf("%+v", first)
	}
	failed := first.Cases[1].Failure
	if failed == nil || failed.Message != "expected $.status \"UP\" <1>, found status 500\uFFFD & \n more" || !strings.Contains(failed.Text, "expected: $.status") {
		t.Errorf("%+v", failed)
	}
	if left := first.Cases[2].Skipped; left == nil || left.Message != "it needs that read" || first.Cases[0].Failure != nil {
		t.Errorf("%+v", first.Cases)
	}
	if err := WriteJUnit(full{}, r); err == nil {
		t.Error("a disk that is full was not noticed")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
