// Command faulty is the student service with a fault that shows only once it has traffic, for rollouts that must notice it, or once there
// is a file, for stable releases that break. Which fault, and which file, is the last line of its own file, behind the end of the
// program, so that each is a release of its own.
package main

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/fx"

	"github.com/school-sms/sms/api/server"
	"github.com/school-sms/sms/api/student"
	"github.com/school-sms/sms/migrations"
)

// soundUntil is how many requests are answered well before: more than a smoke test makes.
const soundUntil = 40

// kept is never read: it leaks up to 640 MB.
var kept = make(chan []byte, 80)

// faults are what then becomes of a request, the nth; those that return true answer it.
var faults = map[string]func(w http.ResponseWriter, n int64) bool{
	"errors": func(w http.ResponseWriter, n int64) bool {
		if n%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return n%2 == 0
	},
	"leak": func(_ http.ResponseWriter, n int64) bool {
		if n < soundUntil+80 {
			kept <- bytes.Repeat([]byte{1}, 8<<20)
		}
		return false
	},
	"slow":  func(http.ResponseWriter, int64) bool { time.Sleep(time.Second); return false },
	"crash": func(http.ResponseWriter, int64) bool { os.Exit(4); return true },
}

func main() {
	name, file, _ := strings.Cut(ownFault(), " ")
	fault := faults[name]
	if fault == nil {
		os.Exit(2)
	}
	server.Run(
		server.Module("student-service"),
		server.Database("student-service", migrations.Student()),
		student.Module,
		fx.Invoke(func(s *server.Server) {
			s.Wrap(func(next http.Handler) http.Handler { return faulty(next, fault, file) })
		}),
		server.Serve,
		server.Registered,
	)
}

func ownFault() string {
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	content, err := os.ReadFile(program)
	if err != nil {
		return ""
	}
	return string(content[bytes.LastIndexByte(content, '\n')+1:])
}

func faulty(next http.Handler, fault func(http.ResponseWriter, int64) bool, file string) http.Handler {
	var served atomic.Int64
	shows := func(n int64) bool {
		if file == "" {
			return n > soundUntil
		}
		_, err := os.Stat(file)
		return err == nil
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/v1/") {
			if n := served.Add(1); shows(n) && fault(w, n) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}
