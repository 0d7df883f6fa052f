package settings

import (
	"reflect"
	"strings"
)

// Setting is one setting in force.
type Setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // environment or default
}

// Describe lists the settings of a T with the values that they have in an environment. Secrets, which come from files,
// show the file's path.
func Describe[T any](environ map[string]string) []Setting {
	return describe(reflect.TypeFor[T](), environ)
}

func describe(t reflect.Type, environ map[string]string) []Setting {
	var all []Setting
	for i := range t.NumField() {
		field := t.Field(i)
		tag, ok := field.Tag.Lookup("env")
		if !ok {
			if field.Type.Kind() == reflect.Struct {
				all = append(all, describe(field.Type, environ)...)
			}
			continue
		}
		name, _, _ := strings.Cut(tag, ",")
		s := Setting{Name: name, Value: field.Tag.Get("envDefault"), Source: "default"}
		if value, set := environ[name]; set && value != "" {
			s.Value, s.Source = value, "environment"
		}
		all = append(all, s)
	}
	return all
}
