package smoke

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

// PlatformYAML is the built-in suite.
//
//go:embed platform.yaml
var PlatformYAML []byte

// Schema is the JSON Schema (2020-12) of suites.
//
//go:embed suite.schema.json
var Schema []byte

// suiteSchema is Schema, made ready when it is first needed.
var suiteSchema = sync.OnceValue(func() *jsonschema.Schema {
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		panic(err) // a test reads it
	}
	const name = "suite.schema.json"
	c := jsonschema.NewCompiler()
	if err := c.AddResource(name, document); err != nil {
		panic(err)
	}
	return c.MustCompile(name)
})

// Platform is the built-in suite.
func Platform() Suite {
	s, err := Read(PlatformYAML)
	if err != nil {
		panic(err) // a test reads it
	}
	return s
}

// ReadFile reads the suite of a file. The error names the file and every fault, one a line.
func ReadFile(path string) (Suite, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Suite{}, fmt.Errorf("read a suite: %w", err)
	}
	s, err := Read(raw)
	if err != nil {
		return s, fmt.Errorf("suite %s: %s", path, strings.ReplaceAll(err.Error(), "\n", "\nsuite "+path+": "))
	}
	return s, nil
}

// maxSuite is how large a suite's file may be, in bytes: it is read by people.
const maxSuite = 1 << 20

// Read reads a suite. The error names every fault with its place, one a line.
func Read(raw []byte) (Suite, error) {
	var s Suite
	if len(raw) > maxSuite {
		return s, fmt.Errorf("a suite has %d bytes at most, this one has %d", maxSuite, len(raw))
	}
	file, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return s, notYAML(err)
	}
	if len(file.Docs) > 1 {
		return s, errors.New("there are several YAML documents: give each suite its own file")
	}
	var value any
	if err := yaml.Unmarshal(raw, &value); err != nil {
		return s, notYAML(err)
	}
	asJSON, err := encoded(value)
	if err != nil {
		return s, fmt.Errorf("it holds what JSON does not know: %w", err)
	}
	f := &faults{file: file}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return s, err
	}
	if err := suiteSchema().Validate(instance); err != nil {
		var invalid *jsonschema.ValidationError
		if !errors.As(err, &invalid) {
			return s, err
		}
		f.schema(invalid)
	}
	if err := json.Unmarshal(asJSON, &s); err != nil {
		if len(f.all) == 0 { // otherwise the schema has named it
			f.add(nil, "%s", err)
		}
		return s, f.err()
	}
	f.suite(s)
	return s, f.err()
}

// notYAML is one line of what the parser says in several, with a picture.
func notYAML(err error) error {
	line, _, _ := strings.Cut(yaml.FormatError(err, false, false), "\n")
	return fmt.Errorf("it is not YAML: %s", line)
}

// faults collects what is wrong with a suite.
type faults struct {
	file *ast.File
	all  []fault
}

type fault struct {
	line int
	text string
}

// add names a fault at a place: keys and indexes from the root.
func (f *faults) add(at []string, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if place := placeOf(at); place != "" {
		text = place + ": " + text
	}
	f.all = append(f.all, fault{f.line(at), text})
}

func placeOf(at []string) string {
	var b strings.Builder
	for _, key := range at {
		switch _, err := strconv.Atoi(key); {
		case err == nil:
			b.WriteString("[" + key + "]")
		case strings.ContainsAny(key, ".[ $"):
			b.WriteString("[" + strconv.Quote(key) + "]")
		default:
			b.WriteString("." + key)
		}
	}
	return strings.TrimPrefix(b.String(), ".")
}

// line is where a place is, or the nearest around it that has a line: what an alias stands for is elsewhere.
func (f *faults) line(at []string) int {
	for ; len(at) > 0; at = at[:len(at)-1] {
		path := (&yaml.PathBuilder{}).Root()
		for _, key := range at {
			if i, err := strconv.ParseUint(key, 10, 31); err == nil {
				path = path.Index(uint(i))
			} else {
				path = path.Child(key)
			}
		}
		if node, err := path.Build().FilterFile(f.file); err == nil && node != nil {
			return node.GetToken().Position.Line
		}
	}
	return 1
}

// err is all faults in the order of the file; nil when there are none.
func (f *faults) err() error {
	slices.SortFunc(f.all, func(a, b fault) int { return cmp.Or(a.line-b.line, strings.Compare(a.text, b.text)) })
	var all []error
	for _, one := range slices.Compact(f.all) {
		all = append(all, fmt.Errorf("line %d: %s", one.line, one.text))
	}
	return errors.Join(all...)
}

var english = message.NewPrinter(language.English)

// schema adds what the schema says.
func (f *faults) schema(e *jsonschema.ValidationError) {
	for _, cause := range e.Causes {
		f.schema(cause)
	}
	if len(e.Causes) > 0 {
		return
	}
	switch k := e.ErrorKind.(type) {
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			f.add(append(slices.Clone(e.InstanceLocation), name), "there is no such key")
		}
	case *kind.Required:
		for _, name := range k.Missing {
			f.add(e.InstanceLocation, "%s is missing", name)
		}
	default:
		f.add(e.InstanceLocation, "%s", e.ErrorKind.LocalizedString(english))
	}
}
