package conformance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// raw is JSON as it is sent, right or wrong.
type raw string

// object is a JSON object whose fields keep their order and may be there twice.
type object []field

type field struct {
	name  raw
	value any // raw or object
}

// fieldsOf reads a JSON object; false when it is none.
func fieldsOf(body []byte) (object, bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil, false
	}
	o := object{}
	for _, name := range keys(members) {
		quoted, _ := json.Marshal(name)
		f := field{raw(quoted), raw(members[name])}
		if inner, ok := fieldsOf(members[name]); ok && inner != nil {
			f.value = inner
		}
		o = append(o, f)
	}
	return o, true
}

func (o object) encode() []byte {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(string(f.name) + ":")
		switch value := f.value.(type) {
		case object:
			b.Write(value.encode())
		case raw:
			b.WriteString(string(value))
		}
	}
	b.WriteByte('}')
	return b.Bytes()
}

func unquoted(name raw) string {
	text, err := strconv.Unquote(string(name))
	if err != nil {
		return string(name)
	}
	return text
}

// changeObject changes one field of an object: another value, none, twice, under a wrong name, or one that the schema does not know.
func (g generator) changeObject(s *service, schema map[string]any, o object) object {
	o = slices.Clone(o)
	properties, _ := schema["properties"].(map[string]any)
	property := func(name string) map[string]any {
		p, _ := properties[name].(map[string]any)
		return s.resolve(p)
	}
	if known := keys(properties); len(known) > 0 && (len(o) == 0 || g.chance(30)) { // set any
		name := pick(g, known)
		o = slices.DeleteFunc(o, func(f field) bool { return unquoted(f.name) == name })
		return append(o, field{raw(strconv.Quote(name)), g.value(s, name, property(name))})
	}
	if len(o) == 0 {
		return object{{raw(`"x"`), g.odd()}}
	}
	i := g.IntN(len(o))
	name := unquoted(o[i].name)
	if inner, ok := o[i].value.(object); ok && g.chance(70) {
		o[i].value = g.changeObject(s, property(name), inner)
		return o
	}
	switch g.IntN(10) {
	case 0:
		return slices.Delete(o, i, i+1)
	case 1:
		return append(o, field{o[i].name, g.value(s, name, property(name))})
	case 2:
		o[i].name = raw(pick(g, []string{strings.ToUpper(string(o[i].name)), strings.Replace(string(o[i].name), `"`, `" `, 1), `"\u0000"`, `"\ud800"`, "\"\xff\"", `"__proto__"`, `""`}))
	case 3:
		return append(o, field{raw(pick(g, []string{`"extra"`, `"version"`, `"createdBy"`, `"studentId"`, `"status"`, `"$schema"`})), g.odd()})
	case 4, 5:
		o[i].value = g.odd()
	default:
		o[i].value = g.value(s, name, property(name))
	}
	return o
}

// odd is a value that hardly any field takes.
func (g generator) odd() raw {
	return pick(g, []raw{"null", "true", "0", "-0", "-1", "1.5", "1e400", "9223372036854775808", "[]", "{}", "[null]", `{"a":{"b":[]}}`, `""`, `" "`, `"\u0000"`,
		`"\ud800"`, `"\udc00\ud800"`, `"a\ud83d"`, "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", `"\x"`, "\"\n\"", `"\u202e"`, "01", "NaN", "'x'", "undefined", "",
		raw(`"` + strings.Repeat("x", 5000) + `"`), raw(strings.Repeat("[", 500) + strings.Repeat("]", 500)), raw(strings.Repeat("9", 400))})
}

// value is a value for a field or parameter: one that fits, one at a bound of its schema or just beyond, or an odd one.
func (g generator) value(s *service, name string, schema map[string]any) any {
	if g.chance(15) {
		return g.odd()
	}
	quote := func(text string) raw {
		quoted, _ := json.Marshal(text)
		return raw(quoted)
	}
	if unique, ok := fresh[name]; ok && g.chance(50) {
		return quote(fmt.Sprintf(unique, s.number.Add(1)))
	}
	var likely []any
	for _, known := range []string{"enum", "examples"} {
		values, _ := schema[known].([]any)
		likely = append(likely, values...)
	}
	if value, ok := schema["default"]; ok {
		likely = append(likely, value)
	}
	if len(likely) > 0 && g.chance(50) {
		encoded, _ := json.Marshal(pick(g, likely))
		return raw(encoded)
	}
	switch typeOf(schema) {
	case "integer", "number":
		bounds := []float64{0, 1, -1, 2147483648}
		for _, bound := range []string{"minimum", "maximum"} {
			if value, ok := schema[bound].(float64); ok {
				bounds = append(bounds, value-1, value, value+1)
			}
		}
		return raw(strconv.FormatFloat(pick(g, bounds), 'f', -1, 64) + pick(g, []string{"", "", "", "", ".0", ".5", "e2", "x"}))
	case "boolean":
		return pick(g, []raw{"true", "false", `"true"`, "1"})
	case "object":
		return g.changeObject(s, schema, object{})
	case "array":
		items, _ := schema["items"].(map[string]any)
		inner := g.value(s, "", s.resolve(items))
		encoded := object{{raw(`""`), inner}}.encode() // {"":inner}
		return raw("[" + string(encoded[4:len(encoded)-1]) + "]")
	}
	switch schema["format"] {
	case "date":
		return quote(pick(g, []string{"2016-06-30", "2012-02-29", "2015-02-29", "2016-13-01", "0000-01-01", "0001-01-01", "9999-12-31", "10000-01-01", "-001-01-01",
			"2016-6-3", "2016-06-30T00:00:00Z", "2030-01-01", " 2016-06-30", "20160630"}))
	case "date-time":
		return quote(pick(g, []string{"2016-06-30T00:00:00Z", "2016-06-30T00:00:00+25:00", "2016-06-30 00:00", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z"}))
	}
	for _, bound := range []string{"minLength", "maxLength"} {
		if n, ok := schema[bound].(float64); ok && g.chance(40) {
			return quote(strings.Repeat("a", max(0, int(n)+g.IntN(3)-1)))
		}
	}
	return quote(g.text())
}
