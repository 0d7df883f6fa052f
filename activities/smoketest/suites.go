package smoketest

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/school-sms/sms/internal/smoke"
)

// SuiteFile is a suite of an installation's own, which is run in an environment after the built-in one.
type SuiteFile struct{ Environment, Path string }

// SuiteFiles are the configured ones, in their order.
type SuiteFiles []SuiteFile

// UnmarshalText reads SMOKE_SUITES.
func (s *SuiteFiles) UnmarshalText(text []byte) error {
	var faults []error
	for item := range strings.SplitSeq(string(text), ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		environment, path, _ := strings.Cut(item, "=")
		if environment == "" || !filepath.IsAbs(path) {
			faults = append(faults, fmt.Errorf("%q is not environment=path, such as production=/etc/sms/school.yaml", item))
			continue
		}
		*s = append(*s, SuiteFile{environment, path})
	}
	return errors.Join(faults...)
}

// Read reads the suites of an environment. The error names every fault of every file.
func (s SuiteFiles) Read(environment string) ([]smoke.Suite, error) {
	var suites []smoke.Suite
	var faults []error
	taken := map[string]string{smoke.Platform().Name: "the built-in suite"}
	for _, file := range s {
		if file.Environment != environment {
			continue
		}
		suite, err := smoke.ReadFile(file.Path)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		if by, ok := taken[suite.Name]; ok {
			faults = append(faults, fmt.Errorf("suite %s: %s has the name %q, too", file.Path, by, suite.Name))
		}
		taken[suite.Name] = file.Path
		suites = append(suites, suite)
	}
	return suites, errors.Join(faults...)
}

// Check reads all suites, and names every fault.
func (c Config) Check() error {
	var faults []error
	seen := map[string]bool{}
	for _, file := range c.Suites {
		if seen[file.Environment] {
			continue
		}
		seen[file.Environment] = true
		if _, known := c.Gateways.URL(file.Environment); !known {
			faults = append(faults, fmt.Errorf("%q has no gateway in SMOKE_GATEWAYS", file.Environment))
		}
		_, err := c.Suites.Read(file.Environment)
		faults = append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return fmt.Errorf("SMOKE_SUITES: %w", err)
	}
	return nil
}
