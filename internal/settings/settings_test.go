package settings

import (
	"errors"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Timeout time.Duration `env:"INNER_TIMEOUT" envDefault:"1s"`
	On      bool          `env:"INNER_ON"`
}

type outer struct {
	Inner   inner
	Timeout time.Duration `env:"OUTER_TIMEOUT" envDefault:"1s"`
	Limit   int           `env:"OUTER_LIMIT" envDefault:"3"`
}

func (o outer) Check() error {
	if o.Limit > 5 {
		return errors.New("OUTER_LIMIT: at most 5")
	}
	return nil
}

func TestEveryFaultNamesItsVariable(t *testing.T) {
	t.Parallel()
	_, err := From[outer](map[string]string{"INNER_ON": "maybe", "INNER_TIMEOUT": "soon", "OUTER_LIMIT": "9"})
	if err == nil {
		t.Fatal("no fault")
	}
	for _, part := range []string{"3 fault(s)", "\n  - INNER_ON: want a bool: ", `parsing "maybe"`, "\n  - INNER_TIMEOUT: want a time.Duration: ", `invalid duration "soon"`,
		"\n  - OUTER_LIMIT: at most 5"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	got, err := From[outer](map[string]string{"INNER_ON": "true", "OUTER_TIMEOUT": "2s"})
	if want := (outer{Inner: inner{Timeout: time.Second, On: true}, Timeout: 2 * time.Second, Limit: 3}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}
