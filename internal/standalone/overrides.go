package standalone

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// serviceSettings reads the file in which an operator gives settings to a service's processes: NAME=VALUE lines, and lines that
// begin with #. It is read at each start of a process, so that `sms restart` brings a change into force. Without a file there are none.
func (l Layout) serviceSettings(service string) ([]string, error) {
	path := l.settingsOf(service)
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the settings of %s: %w", service, err)
	}
	var env []string
	lines := bufio.NewScanner(bytes.NewReader(content))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, _, found := strings.Cut(line, "=")
		if !found || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%s, line %d: want NAME=VALUE", path, n) // the line itself may be a secret
		}
		env = append(env, line)
	}
	return env, lines.Err()
}
