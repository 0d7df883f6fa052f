package smoke

import (
	"encoding/xml"
	"fmt"
	"io"
	"time"
)

type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes a report as JUnit XML, as CI systems read it: a testsuite for each suite, times in seconds.
func WriteJUnit(w io.Writer, r Report) error {
	var all junitSuites
	var took int64
	for i, c := range r.Checks {
		if i == 0 || c.Suite != r.Checks[i-1].Suite {
			all.Suites = append(all.Suites, junitSuite{Name: c.Suite})
			took = 0
		}
		suite := &all.Suites[len(all.Suites)-1]
		one := junitCase{Name: c.Name, Class: c.Suite, Time: seconds(c.DurationMS)}
		suite.Tests++
		switch {
		case c.LeftOut != "":
			suite.Skipped++
			one.Skipped = &junitMessage{Message: c.LeftOut}
		case !c.OK:
			suite.Failures++
			said := fmt.Sprintf("expected %s, found %s", c.Expected, c.Found)
			one.Failure = &junitMessage{Message: said, Text: fmt.Sprintf("%s\nat %s\nexpected: %s\nfound: %s\n", c.Name, r.URL, c.Expected, c.Found)}
		}
		took += c.DurationMS
		suite.Time = seconds(took)
		suite.Cases = append(suite.Cases, one)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	encoder := xml.NewEncoder(w)
	encoder.Indent("", "  ")
	if err := encoder.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(ms int64) string {
	return fmt.Sprintf("%.3f", (time.Duration(ms) * time.Millisecond).Seconds())
}
