// Package migrations holds the numbered SQL of every database that the platform owns.
package migrations

import (
	"embed"
	"io/fs"
)

//go:embed student configuration registry ops
var files embed.FS

// Student is the schema of student_db.
func Student() fs.FS { return sub("student") }

// Configuration is the schema of configuration_db.
func Configuration() fs.FS { return sub("configuration") }

// Registry is the schema of registry_db.
func Registry() fs.FS { return sub("registry") }

// Ops is the schema of ops_db.
func Ops() fs.FS { return sub("ops") }

func sub(dir string) fs.FS {
	f, err := fs.Sub(files, dir)
	if err != nil {
		panic(err) // the name is a constant of this file
	}
	return f
}
