// Package settings reads a process's configuration from its environment.
//
// A process has one struct; every field names its variable, default and unit:
//
//	type Config struct {
//		// Address to listen on, host:port; port 0 picks a free one.
//		Address string `env:"SERVER_ADDRESS" envDefault:"127.0.0.1:0"`
//	}
//
// Secrets are read from files: a field tagged `env:"NAME_FILE,file"` holds the file's content, trimmed.
package settings

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Checker is implemented by configurations with rules that a tag cannot say. Check returns every fault, joined.
type Checker interface{ Check() error }

// Load fills a T from the process environment. The error names all faults at once, one a line.
func Load[T any]() (T, error) { return From[T](env.ToMap(os.Environ())) }

// From is Load on a given environment.
func From[T any](environ map[string]string) (T, error) {
	var cfg T
	var faults []string
	if err := env.ParseWithOptions(&cfg, env.Options{Environment: environ}); err != nil {
		var all env.AggregateError
		if errors.As(err, &all) {
			for _, fault := range all.Errors {
				faults = append(faults, inWords(fault, reflect.TypeFor[T](), environ))
			}
		} else {
			faults = append(faults, err.Error())
		}
	}
	trim(reflect.ValueOf(&cfg).Elem())
	if checker, ok := any(cfg).(Checker); ok {
		if err := checker.Check(); err != nil {
			faults = append(faults, strings.Split(err.Error(), "\n")...)
		}
	}
	if len(faults) > 0 {
		return cfg, fmt.Errorf("configuration has %d fault(s):\n  - %s", len(faults), strings.Join(faults, "\n  - "))
	}
	return cfg, nil
}

// inWords names the variables that a fault may be about, where the library names the field of a struct alone.
func inWords(fault error, config reflect.Type, environ map[string]string) string {
	parsing, ok := errors.AsType[env.ParseError](fault)
	if !ok {
		return fault.Error()
	}
	return fmt.Sprintf("%s: want a %s: %v", strings.Join(variables(config, parsing, environ), " or "), parsing.Type, parsing.Err)
}

func variables(config reflect.Type, parsing env.ParseError, environ map[string]string) (names []string) {
	for i := range config.NumField() {
		field := config.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("env"), ",")
		switch {
		case name == "" && field.Type.Kind() == reflect.Struct:
			names = append(names, variables(field.Type, parsing, environ)...)
		case field.Name == parsing.Name && field.Type == parsing.Type && environ[name] != "":
			names = append(names, name)
		}
	}
	return names
}

// trim takes the line end off values that come from files.
func trim(v reflect.Value) {
	for i := range v.NumField() {
		field, tag := v.Field(i), v.Type().Field(i).Tag.Get("env")
		switch {
		case field.Kind() == reflect.Struct:
			trim(field)
		case field.Kind() == reflect.String && strings.HasSuffix(tag, ",file"):
			field.SetString(strings.TrimSpace(field.String()))
		}
	}
}
