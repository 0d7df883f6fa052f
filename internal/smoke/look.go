package smoke

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/theory/jsonpath"
)

// look compares an answer with what is expected of it: two empty strings when all is well. It names places, never what was found there
// unless that is public. What it says was expected are the suite's own words, without the values of variables.
func (e Expect) look(a answer, v values) (expected, found string) {
	if expected, found := a.status(e.Status); expected != "" {
		return expected, found
	}
	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		var there []any
		if all := a.header.Values(name); len(all) > 0 {
			there = append(there, strings.Join(all, ", "))
		}
		if expected, found := e.Headers[name].look("header "+name, there, v); expected != "" {
			return expected, found
		}
	}
	if len(e.JSON) > 0 {
		body, ok := a.json()
		if !ok {
			return "a body of JSON", "another"
		}
		for _, path := range slices.Sorted(maps.Keys(e.JSON)) {
			there, ok := valuesAt(path, body, v)
			if !ok {
				return path, "a variable's value that breaks the path: put the variable in single quotes"
			}
			if expected, found := e.JSON[path].look(path, there, v); expected != "" {
				return expected, found
			}
		}
	}
	if within := time.Duration(e.Within); within > 0 && a.took > within {
		return "an answer within " + within.String(), "one after " + a.took.Round(time.Millisecond).String()
	}
	return "", ""
}

// valuesAt is what a JSON path selects; false when a variable's value makes it none.
func valuesAt(path string, body any, v values) ([]any, bool) {
	p, err := jsonpath.Parse(v.text(path, inPath))
	if err != nil {
		return nil, false
	}
	return p.Select(body), true
}

// look compares the values that were found at a place.
func (v Value) look(at string, there []any, filled values) (expected, found string) {
	if v.Exists != nil && !*v.Exists {
		if len(there) == 0 {
			return "", ""
		}
		return "no " + at, v.show(there[0])
	}
	switch {
	case len(there) == 0:
		return at + v.wanted(), "nothing"
	case len(there) > 1 && !v.onlyExists():
		return at + v.wanted(), fmt.Sprintf("%d values", len(there))
	}
	one := there[0]
	if v.Type != "" && typeOf(one) != v.Type {
		return at + " of type " + v.Type, "one of type " + typeOf(one)
	}
	if v.Equals != nil {
		var want any
		if json.Unmarshal(v.Equals, &want) != nil || !reflect.DeepEqual(filled.filled(want), one) {
			return at + " " + string(v.Equals), v.show(one)
		}
	}
	if v.Contains != nil {
		if field, want, got, ok := contains(at, v.Contains, one, filled); !ok {
			return field + " " + want, v.show(got)
		}
	}
	if v.Matches != "" {
		text, ok := one.(string)
		pattern, err := regexp.Compile(filled.text(v.Matches, regexp.QuoteMeta))
		if err != nil || !ok || !pattern.MatchString(text) {
			return at + " matching " + v.Matches, v.show(one)
		}
	}
	number, ok := one.(float64)
	if v.Min != nil && (!ok || number < *v.Min) {
		return fmt.Sprintf("%s at least %v", at, *v.Min), v.show(one)
	}
	if v.Max != nil && (!ok || number > *v.Max) {
		return fmt.Sprintf("%s at most %v", at, *v.Max), v.show(one)
	}
	return "", ""
}

func (v Value) onlyExists() bool {
	return v.Exists != nil && *v.Exists && reflect.DeepEqual(v, Value{Exists: v.Exists, Public: v.Public})
}

// wanted is what is said of a place where nothing is.
func (v Value) wanted() string {
	if v.Equals != nil {
		return " " + string(v.Equals)
	}
	return ""
}

// maxShown is how much of a value a report shows, in bytes.
const maxShown = 200

func (v Value) show(found any) string {
	if found == nothing {
		return "nothing"
	}
	if !v.Public {
		return "another value"
	}
	text := jsonText(found)
	if len(text) > maxShown {
		text = strings.ToValidUTF8(text[:maxShown], "") + "…"
	}
	return text
}

// nothing is found where a field is not there.
var nothing any = new(struct{ _ byte })

// contains compares the fields of an object with those that it must have. It returns the first that differs, by the order of names.
func contains(at string, want map[string]any, found any, v values) (field, wanted string, got any, ok bool) {
	object, isObject := found.(map[string]any)
	if !isObject {
		return at, "of type object", found, false
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		field := at + "." + name
		got, there := object[name]
		if !there {
			return field, jsonText(want[name]), nothing, false
		}
		if inner, nested := want[name].(map[string]any); nested {
			if field, wanted, got, ok := contains(field, inner, got, v); !ok {
				return field, wanted, got, false
			}
			continue
		}
		if !reflect.DeepEqual(v.filled(want[name]), got) {
			return field, jsonText(want[name]), got, false
		}
	}
	return "", "", nil, true
}

func typeOf(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "boolean"
	case float64:
		return "number"
	case string:
		return "string"
	case []any:
		return "array"
	}
	return "object"
}
