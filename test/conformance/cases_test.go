package conformance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/identity"
)

// existing says which operation makes what a parameter of this name refers to, and where its answer says how it is called.
var existing = map[string]struct{ operation, field string }{
	"studentId": {"create-student", "studentId"},
	"settingId": {"create-setting", "settingId"},
	"importId":  {"import-students", "importId"},
}

// fresh makes values that no two requests may share, by the name of the field or parameter.
var fresh = map[string]string{
	"mobile": "9%09d",
	"key":    "KEY_%d",
}

// change makes one request another.
type change func(*testing.T, *service, *request)

// exercise is what the document cannot tell of an operation.
type exercise struct {
	// prepare makes the request that follows from the document one that the operation accepts.
	prepare change
	// also makes of that request others that the operation accepts and answers in another way.
	also []change
	// provoke makes of an accepted request one that is answered with the status, besides the statuses that generic knows.
	provoke map[int]change
}

// cases has a line for each operation that needs more than its document. (A literal would refer to itself: its functions make requests.)
var cases map[string]exercise

func init() {
	cases = map[string]exercise{
		"create-student":  {provoke: map[int]change{http.StatusConflict: takenMobile}},
		"search-students": {also: []change{asked("cursor=start&size=1"), nextOfSearch, asked("q=Ahsa"), asked("firstName=a&sort=lastName,asc&minAge=3")}},
		"get-student":     {also: []change{asked("reveal=aadhaarNumber")}},
		"replace-student": {provoke: map[int]change{http.StatusConflict: takenMobile}},
		"patch-student":   {provoke: map[int]change{http.StatusConflict: takenMobile}},
		"erase-student":   {prepare: confirmedErasure, provoke: map[int]change{http.StatusConflict: syntheticStudent}},
		"student-changes": {also: []change{nextOfChanges}, provoke: map[int]change{http.StatusConflict: foreignCursor}},
		"import-students": {prepare: oneRow, also: []change{asked("dryRun=true"), partly},
			provoke: map[int]change{http.StatusAccepted: heldUp, http.StatusConflict: stillSent}},
		"get-rejected-rows":      {provoke: map[int]change{http.StatusConflict: ofHeldUpImport}},
		"list-settings":          {also: []change{presentVersion}},
		"create-setting":         {provoke: map[int]change{http.StatusConflict: takenKey}},
		"delete-setting":         {provoke: map[int]change{http.StatusConflict: neededAgeLimit}},
		"replace-school-profile": {prepare: currentETag},
	}
}

// asked asks with a query.
func asked(query string) change {
	return func(_ *testing.T, _ *service, r *request) { r.query = query }
}

// nextOfSearch goes on with a search from what its first page says.
func nextOfSearch(t *testing.T, s *service, r *request) {
	s.create(t, "create-student", "studentId")
	s.create(t, "create-student", "studentId") // so that there is a second page
	r.query = "cursor=start&size=1"
	r.query = "size=1&cursor=" + s.fieldOf(t, r, "nextCursor")
}

func nextOfChanges(t *testing.T, s *service, r *request) {
	r.query = "after=" + s.fieldOf(t, r, "next")
}

// presentVersion waits for a change of what is there.
func presentVersion(t *testing.T, s *service, r *request) {
	_, header, _ := s.send(t, r)
	r.query = "waitForVersion=" + header.Get("Settings-Version")
}

// takenMobile asks for another student's mobile number.
func takenMobile(t *testing.T, s *service, r *request) {
	r.setField(t, "mobile", s.create(t, "create-student", "mobile"))
}

func takenKey(t *testing.T, s *service, r *request) {
	r.setField(t, "key", s.create(t, "create-setting", "key"))
}

// oneRow is a file of one student.
func oneRow(_ *testing.T, s *service, r *request) {
	r.body = fmt.Appendf(nil, "firstName,lastName,dateOfBirth,street,city,state,pinCode,country,mobile,fatherNameOrGuardian,motherName,caste\r\n"+
		"Asha,Patil,2016-06-30,12 Lake Road,Pune,Maharashtra,411001,India,"+fresh["mobile"]+",Ravi Patil,Meera Patil,General\r\n", s.number.Add(1))
}

// partly has a row that is taken and rows that are not.
func partly(_ *testing.T, _ *service, r *request) {
	r.query = "mode=partial"
	r.body = append(r.body, "A,\xff,2016-02-30,,,,12,,1\r\n\"unclosed"...)
}

// heldUp sends the file where nobody can write students while the test runs.
func heldUp(t *testing.T, s *service, r *request) {
	r.at = start(t, products[0], s.seen)
	r.at.lock(t, "student")
}

// stillSent sends the file a second time under its key, while the first is being taken and cannot come to its end.
func stillSent(t *testing.T, s *service, r *request) {
	r.at = start(t, products[0], s.seen)
	r.header.Set("Idempotency-Key", "key")
	var first sync.WaitGroup
	t.Cleanup(first.Wait)
	r.at.lock(t, "student_import_row")
	first.Go(func() {
		if res, err := r.send(r.at); err != nil || res.StatusCode > 299 {
			t.Errorf("the first file: %v, %v", res, err)
		}
	})
	imports := newRequest(http.MethodGet, r.path, "")
	imports.at = r.at
	for deadline := time.Now().Add(patience); s.fieldOf(t, imports, "content") == "[]"; {
		if time.Now().After(deadline) {
			t.Fatal("the first file is not taken")
		}
	}
}

// ofHeldUpImport asks for the bad rows of an import that cannot come to its end.
func ofHeldUpImport(t *testing.T, s *service, r *request) {
	file := s.valid(t, s.named("import-students"))
	heldUp(t, s, file)
	r.at, r.path = file.at, strings.Replace(r.op.path, "{importId}", s.fieldOf(t, file, "importId"), 1)
}

// currentETag reads what the request would write over.
func currentETag(t *testing.T, s *service, r *request) {
	_, header, _ := s.send(t, newRequest(http.MethodGet, r.path, ""))
	r.header.Set("If-Match", header.Get("ETag"))
}

// confirmedErasure types the student's id again.
func confirmedErasure(t *testing.T, s *service, r *request) {
	steps := strings.Split(r.path, "/")
	r.setField(t, "confirm", steps[len(steps)-2])
}

// syntheticStudent asks for the erasure of a smoke test's student, who is nobody.
func syntheticStudent(t *testing.T, s *service, r *request) {
	create := s.valid(t, s.named("create-student"))
	create.header.Set("X-SMS-Synthetic", "true")
	r.path = strings.Replace(r.op.path, "{studentId}", s.fieldOf(t, create, "studentId"), 1)
	confirmedErasure(t, s, r)
}

// foreignCursor asks for the changes after a cursor of another database.
func foreignCursor(t *testing.T, s *service, r *request) {
	cursor, err := base64.RawURLEncoding.DecodeString(s.fieldOf(t, newRequest(http.MethodGet, r.path, ""), "next"))
	if err != nil {
		t.Fatal(err)
	}
	cursor[1] ^= 1 // the first byte of what tells the database
	r.query = "after=" + base64.RawURLEncoding.EncodeToString(cursor)
}

// neededAgeLimit asks for the removal of an age limit whose default would contradict the other.
func neededAgeLimit(t *testing.T, s *service, r *request) {
	const settings = "/api/v1/configurations/settings"
	var found struct {
		Academic []struct {
			SettingID int
			Key       string
		} `json:"ACADEMIC"`
	}
	_, _, body := s.send(t, newRequest(http.MethodGet, settings, ""))
	if err := json.Unmarshal(body, &found); err != nil {
		t.Fatal(err)
	}
	for _, raise := range []struct{ key, value string }{{"MAX_STUDENT_AGE", "30"}, {"MIN_STUDENT_AGE", "25"}} {
		for _, setting := range found.Academic {
			if setting.Key == raise.key {
				put := newRequest(http.MethodPut, fmt.Sprintf("%s/%d", settings, setting.SettingID), `{"value":"`+raise.value+`"}`)
				currentETag(t, s, put)
				s.fieldOf(t, put, "version")
				if raise.key == "MAX_STUDENT_AGE" {
					r.path = put.path
				}
			}
		}
	}
	currentETag(t, s, r)
}

// generic provokes a status of any operation that documents it. Every request that it returns must be answered so.
var generic = map[int]func(t *testing.T, s *service, op *operation) []*request{
	http.StatusNotModified: func(t *testing.T, s *service, op *operation) []*request {
		r := s.valid(t, op)
		_, header, _ := s.send(t, r)
		r.header.Set("If-None-Match", header.Get("ETag"))
		return []*request{r}
	},
	http.StatusGone: func(t *testing.T, s *service, op *operation) []*request { // all that can go is a student
		r := s.valid(t, op)
		erase := s.valid(t, s.named("erase-student"))
		erase.path = strings.Join(strings.Split(r.path, "/")[:5], "/") + "/erasure" // of /api/v1/students/{studentId}/...
		confirmedErasure(t, s, erase)
		s.fieldOf(t, erase, "erasedAt")
		return []*request{r}
	},
	http.StatusUnauthorized: func(t *testing.T, s *service, op *operation) (requests []*request) {
		for _, token := range []string{"none", "garbage", "expired", "forged"} {
			requests = append(requests, s.changed(t, op, func(r *request) { r.token = token }))
		}
		return requests
	},
	http.StatusForbidden: func(t *testing.T, s *service, op *operation) []*request {
		for _, role := range slices.Backward(identity.Roles()) {
			as := func(r *request) { r.token = string(role) }
			if status, _, _ := s.send(t, s.changed(t, op, as)); status == http.StatusForbidden {
				return []*request{s.changed(t, op, as)}
			}
		}
		return nil
	},
	http.StatusNotFound: func(t *testing.T, s *service, op *operation) []*request {
		missing := func(name string, number string) func(*request) {
			return func(r *request) { r.path = strings.ReplaceAll(op.path, "{"+name+"}", number) }
		}
		var requests []*request
		for _, p := range op.Parameters {
			switch {
			case p.In != "path":
			case typeOf(p.Schema) == "integer":
				requests = append(requests, s.changed(t, op, missing(p.Name, "9007199254740991")))
			case p.Schema["format"] == "uuid":
				requests = append(requests, s.changed(t, op, missing(p.Name, "00000000-0000-4000-8000-000000000000")))
			default:
				requests = append(requests, s.changed(t, op, missing(p.Name, "STU-1900-99999")), s.changed(t, op, missing(p.Name, "%00")))
			}
		}
		return requests
	},
	http.StatusPreconditionFailed: func(t *testing.T, s *service, op *operation) (requests []*request) {
		for _, tag := range []string{`"999"`, `W/"1"`, `1`} {
			requests = append(requests, s.changed(t, op, func(r *request) { r.header.Set("If-Match", tag) }))
		}
		return requests
	},
	http.StatusPreconditionRequired: func(t *testing.T, s *service, op *operation) []*request {
		return []*request{s.changed(t, op, func(r *request) { r.header.Del("If-Match") })}
	},
	http.StatusUnprocessableEntity: func(t *testing.T, s *service, op *operation) []*request {
		requests := []*request{s.changed(t, op, func(r *request) { r.query += "&noSuchParameter=1" })}
		if r := s.valid(t, op); r.isJSON() {
			r.body = []byte(`{"noSuchField":1}`)
			requests = append(requests, r)
		}
		return requests
	},
	http.StatusBadRequest: func(t *testing.T, s *service, op *operation) []*request {
		requests := []*request{s.changed(t, op, func(r *request) { r.cut = breaksOff })}
		if r := s.valid(t, op); r.isJSON() {
			r.body = r.body[:len(r.body)-1]
			requests = append(requests, r)
		}
		return requests
	},
	http.StatusRequestTimeout: func(t *testing.T, s *service, op *operation) []*request {
		return []*request{s.changed(t, op, func(r *request) { r.cut = stalls })}
	},
	http.StatusRequestEntityTooLarge: func(t *testing.T, s *service, op *operation) (requests []*request) {
		for _, unannounced := range []bool{false, true} {
			requests = append(requests, s.changed(t, op, func(r *request) {
				r.body, r.unannounced = append(r.body, bytes.Repeat([]byte(" "), maxBodyBytes)...), unannounced
			}))
		}
		return requests
	},
	http.StatusUnsupportedMediaType: func(t *testing.T, s *service, op *operation) []*request {
		return []*request{s.changed(t, op, func(r *request) { r.header.Set("Content-Type", "application/x-www-form-urlencoded") })}
	},
}

// changed is a request that the operation would accept, but for one change.
func (s *service) changed(t *testing.T, op *operation, change func(*request)) *request {
	t.Helper()
	r := s.valid(t, op)
	change(r)
	return r
}

// TestEveryDocumentedResponse provokes, for every operation, every response that its document promises.
func TestEveryDocumentedResponse(t *testing.T) {
	t.Parallel()
	for _, p := range products {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			seen := newCoverage()
			s := start(t, p, seen)
			t.Run("provoked", func(t *testing.T) {
				t.Run("by faults of the database", func(t *testing.T) {
					t.Parallel()
					provokeDatabaseFaults(t, start(t, p, seen))
				})
				for _, op := range s.operations {
					t.Run(op.ID, func(t *testing.T) { provokeAll(t, s, op) })
				}
			})
			for _, op := range s.operations {
				for _, status := range keys(op.Responses) {
					if code, err := strconv.Atoi(status); err != nil {
						t.Errorf("%s documents the response %q: name each status", op.ID, status)
					} else if !seen.has(op.ID, code) {
						t.Errorf("%s documents %d, which no case provokes: give it a line in cases (cases_test.go), or take it out of the document", op.ID, code)
					}
				}
				t.Logf("%-26s %v", op.ID, slices.Sorted(maps.Keys(seen.count[op.ID])))
			}
		})
	}
}

func provokeAll(t *testing.T, s *service, op *operation) {
	for _, documented := range keys(op.Responses) {
		status, _ := strconv.Atoi(documented)
		t.Run(documented, func(t *testing.T) {
			t.Parallel()
			var requests []*request
			if provoke := cases[op.ID].provoke[status]; provoke != nil {
				requests = []*request{s.changed(t, op, func(r *request) { provoke(t, s, r) })}
			} else if provoke := generic[status]; provoke != nil {
				requests = provoke(t, s, op)
			} else if status < 300 {
				requests = []*request{s.valid(t, op)}
				for _, also := range cases[op.ID].also {
					requests = append(requests, s.changed(t, op, func(r *request) { also(t, s, r) }))
				}
			}
			for _, r := range requests {
				if got, _, body := s.send(t, r); got != status {
					t.Errorf("%s answered %d, want %d: %s\n%s", op.ID, got, status, body, r)
				}
			}
		})
	}
}

// provokeDatabaseFaults sends each operation a request that it would accept while the database is away, while its tables are
// gone, and then again: nothing may be left of either.
func provokeDatabaseFaults(t *testing.T, s *service) {
	var requests []*request
	for _, op := range s.operations {
		requests = append(requests, s.valid(t, op))
	}
	back := s.unreachable(t)
	for _, r := range requests {
		if status, _, body := s.send(t, r); status != http.StatusServiceUnavailable {
			t.Errorf("without its database %s answered %d: %s\n%s", r.op.ID, status, body, r)
		}
	}
	back()
	whole := s.broken(t)
	for _, r := range requests {
		if status, _, body := s.send(t, r); status != http.StatusInternalServerError {
			t.Errorf("without its tables %s answered %d: %s\n%s", r.op.ID, status, body, r)
		}
	}
	whole()
	for _, r := range requests {
		if status, _, body := s.send(t, r); status > 299 {
			t.Errorf("with all well again %s answered %d: %s\n%s", r.op.ID, status, body, r)
		}
	}
}

// TestWhatIsNotDocumented asks every path for methods that it does not take, and for paths that there are not.
func TestWhatIsNotDocumented(t *testing.T) {
	t.Parallel()
	methods := []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
		http.MethodTrace, "BREW"}
	for _, p := range products {
		s := start(t, p, newCoverage())
		for _, op := range s.operations {
			for _, method := range methods {
				for _, path := range []string{op.path, op.path + "/", op.path + "/nothing/here", "/api" + op.path, strings.ToUpper(op.path[:5]) + op.path[5:]} {
					r := newRequest(method, path, "")
					if found, _ := s.match(method, path); found == nil {
						s.send(t, r) // which checks that it is 404 or 405
					}
				}
			}
		}
	}
}

func (r *request) isJSON() bool { return strings.HasSuffix(r.header.Get("Content-Type"), "json") }

// setField sets a field of the JSON body.
func (r *request) setField(t *testing.T, name string, value any) {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(r.body, &object); err != nil {
		t.Fatal(err)
	}
	object[name] = value
	r.body, _ = json.Marshal(object)
}
