// Command migrating is the student service with more migrations than it has: those in the last line of its own file, behind the end of
// the program, a JSON object of names and SQL. So each set of them is a release of its own.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"testing/fstest"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/student"
	"github.com/school-sms/sms/migrations"
)

func main() {
	all, err := withOwn(migrations.Student())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	server.Run(
		server.Module("student-service"),
		server.Database("student-service", all),
		student.Module,
		server.Serve,
		server.Registered,
	)
}

func withOwn(known fs.FS) (fs.FS, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	var own map[string]string
	if err := json.Unmarshal(content[bytes.LastIndexByte(content, '\n')+1:], &own); err != nil {
		return nil, fmt.Errorf("read the migrations behind the program: %w", err)
	}
	all := fstest.MapFS{}
	for name, sql := range own {
		all[name] = &fstest.MapFile{Data: []byte(sql)}
	}
	err = fs.WalkDir(known, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		sql, err := fs.ReadFile(known, path)
		all[path] = &fstest.MapFile{Data: sql}
		return err
	})
	return all, err
}
