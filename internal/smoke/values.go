package smoke

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

var (
	reference = regexp.MustCompile(`\$\{([^}"]*)\}`)
	randomOf  = regexp.MustCompile(`^random\.(letters|digits)\(([1-9][0-9]?)\)$`)
	dateOf    = regexp.MustCompile(`^date\(((?:[+-][0-9]{1,4}[ymd])*)\)$`)
	dateStep  = regexp.MustCompile(`([+-][0-9]+)([ymd])`)
)

// values are the variables of a run: texts, and what was captured from JSON.
type values map[string]any

// text is a string with its variables and generators filled in, each made safe for where it stands.
func (v values) text(s string, safe func(string) string) string {
	return reference.ReplaceAllStringFunc(s, func(match string) string {
		return safe(textOf(v.of(match[2 : len(match)-1])))
	})
}

// of is the value of a variable, or what a generator makes.
func (v values) of(name string) any {
	if value, ok := v[name]; ok {
		return value
	}
	value, _ := generate(name, time.Now())
	return value
}

// filled is a JSON value with all its strings filled in. A string that is one variable and nothing else has that one's type.
func (v values) filled(value any) any {
	switch value := value.(type) {
	case string:
		if match := reference.FindString(value); match != "" && match == value {
			return v.of(value[2 : len(value)-1])
		}
		return v.text(value, asIs)
	case []any:
		all := make([]any, len(value))
		for i, one := range value {
			all[i] = v.filled(one)
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(value))
		for name, one := range value {
			all[name] = v.filled(one)
		}
		return all
	}
	return value
}

// missing are the variables that v uses and that have no value.
func (v values) missing(uses any) []string {
	var names []string
	for _, name := range referencesOf(uses) {
		if _, generated := generate(name, time.Time{}); generated {
			continue
		}
		if _, known := v[name]; !known {
			names = append(names, name)
		}
	}
	return names
}

func textOf(value any) string {
	if s, ok := value.(string); ok {
		return s
	}
	return jsonText(value)
}

// jsonText is a value, which came from JSON, as JSON writes it.
func jsonText(value any) string {
	raw, _ := encoded(value)
	return string(raw)
}

// encoded is json.Marshal that leaves <, > and & as they are, for people.
func encoded(value any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(value)
	return bytes.TrimSpace(b.Bytes()), err
}

func asIs(s string) string { return s }

// inPath makes a value safe within a JSON path, where it stands in single quotes (RFC 9535, 2.3.1.1).
func inPath(s string) string { return strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) }

// target fills in a path with its query.
func (v values) target(path string) string {
	before, query, asks := strings.Cut(path, "?")
	before = v.text(before, url.PathEscape)
	if !asks {
		return before
	}
	return before + "?" + v.text(query, url.QueryEscape)
}

// generate makes what a generator stands for; false when there is none of that name.
func generate(name string, now time.Time) (string, bool) {
	if match := randomOf.FindStringSubmatch(name); match != nil {
		n, _ := strconv.Atoi(match[2])
		if match[1] == "digits" {
			return random("0123456789", n), true
		}
		return random("abcdefghijklmnopqrstuvwxyz", n), true
	}
	match := dateOf.FindStringSubmatch(name)
	if match == nil {
		return "", false
	}
	date := now.UTC()
	for _, step := range dateStep.FindAllStringSubmatch(match[1], -1) {
		n, _ := strconv.Atoi(step[1])
		switch step[2] {
		case "y":
			date = date.AddDate(n, 0, 0)
		case "m":
			date = date.AddDate(0, n, 0)
		default:
			date = date.AddDate(0, 0, n)
		}
	}
	return date.Format(time.DateOnly), true
}

func random(alphabet string, n int) string {
	var b strings.Builder
	for range n {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			panic(fmt.Sprintf("crypto/rand, which never fails, failed: %v", err))
		}
		b.WriteByte(alphabet[i.Int64()])
	}
	return b.String()
}
