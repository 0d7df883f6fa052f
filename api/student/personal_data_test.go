package student

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/school-sms/sms/api/server/servertest"
	"github.com/school-sms/sms/internal/identity"
)

// discreet sends requests and looks for personal data where none may be.
type discreet struct {
	fixture
	t       *testing.T
	secrets []string
	refused map[int]int
}

func newDiscreet(t *testing.T) *discreet {
	return &discreet{fixture: newFixture(t), t: t, refused: map[int]int{},
		secrets: []string{"975318642097", "2012-02-28", "Xanthippesecret", "6655443322"}}
}

func (d *discreet) input(in *Input) {
	in.AadhaarNumber, in.DateOfBirth, in.FirstName, in.Mobile = &d.secrets[0], d.secrets[1], d.secrets[2], d.secrets[3]
}

func (d *discreet) send(method, path string, body any, headers ...string) servertest.Answer {
	d.t.Helper()
	answer := d.Do(d.t, identity.Admin, method, path, body, headers...)
	if answer.Header.Get("Cache-Control") != "no-store" {
		d.t.Errorf("%s %s: an answer %d that may be stored", method, path, answer.Status)
	}
	if answer.Status >= http.StatusBadRequest {
		d.refused[answer.Status]++
		d.check(fmt.Sprintf("the answer %d to %s %s", answer.Status, method, path), string(answer.Body)+fmt.Sprint(answer.Header))
	}
	return answer
}

func (d *discreet) check(where, text string) {
	d.t.Helper()
	for _, secret := range d.secrets {
		if strings.Contains(text, secret) {
			d.t.Errorf("%s holds %s: %s", where, secret, text)
		}
	}
}

func (d *discreet) checkLogsAndMetrics() {
	d.t.Helper()
	d.check("the access log", d.Log.String())
	d.check("the log", logged.String())
	metrics := string(d.Do(d.t, "", http.MethodGet, "/actuator/prometheus", nil).Want(http.StatusOK).Body)
	d.check("the metrics", metrics)
	if !strings.Contains(metrics, "http_server_request_duration_seconds") {
		d.t.Error("there are no metrics to look at")
	}
}

// Every operation of the document is called with personal data in every place that takes any, right and wrong.
func TestPersonalDataStaysInAnswers(t *testing.T) {
	t.Parallel()
	d := newDiscreet(t)
	student, _ := d.create(t, d.input)
	called := 0
	for path, item := range d.API.OpenAPI().Paths {
		for method, op := range map[string]*huma.Operation{http.MethodGet: item.Get, http.MethodPost: item.Post, http.MethodPut: item.Put,
			http.MethodPatch: item.Patch, http.MethodDelete: item.Delete} {
			if op == nil {
				continue
			}
			called++
			path := strings.ReplaceAll(path, "{studentId}", student.StudentID)
			for _, query := range d.queries(op) {
				d.send(method, path+query, nil, "If-Match", d.secrets[0])
			}
			if op.RequestBody != nil {
				for _, body := range d.bodies(student.StudentID) {
					for mediaType := range op.RequestBody.Content {
						d.send(method, path, body, "If-Match", `"1"`, "Content-Type", mediaType)
					}
				}
			}
		}
	}
	d.checkLogsAndMetrics()
	for _, status := range []int{http.StatusBadRequest, http.StatusPreconditionFailed, http.StatusUnprocessableEntity} {
		if d.refused[status] == 0 || called < 11 {
			t.Errorf("%d operations were called, refused with %v", called, d.refused)
		}
	}
}

// queries puts each secret into each query parameter, and into one that is unknown.
func (d *discreet) queries(op *huma.Operation) []string {
	queries := []string{""}
	for _, secret := range d.secrets {
		all := url.Values{"unknown": {secret}}
		for _, p := range op.Parameters {
			if p.In == "query" && p.Name != "wait" {
				queries = append(queries, "?"+url.Values{p.Name: {secret}}.Encode())
				all.Set(p.Name, secret)
			}
		}
		queries = append(queries, "?"+all.Encode())
	}
	return queries
}

// bodies are right and wrong in every way that an answer might want to explain by repeating what was sent.
func (d *discreet) bodies(id string) []string {
	aadhaar, born, name, mobile := d.secrets[0], d.secrets[1], d.secrets[2], d.secrets[3]
	return []string{
		fmt.Sprintf(`{"aadhaarNumber":%s,"dateOfBirth":%[1]s,"firstName":%[1]s,"mobile":%[1]s,"address":%[1]s}`, aadhaar),
		fmt.Sprintf(`{"aadhaarNumber":"%s1","dateOfBirth":"%sx","firstName":"%s1","mobile":"%s1","email":"%[3]s","moles":"%[3]s\u0000"}`, aadhaar, born, name, mobile),
		fmt.Sprintf(`{"status":%q,"confirm":%q,"reason":%q}`, name, aadhaar, "about "+name),
		fmt.Sprintf(`{"status":%s,"confirm":%[1]s,"reason":%[1]s}`, aadhaar),
		fmt.Sprintf(`{"confirm":%q,"reason":%q}`, id, "about "+name),
		fmt.Sprintf(`{"firstName":"%s","dateOfBirth":"%s", %s}`, name, born, aadhaar),
		fmt.Sprintf(`["%s","%s"]`, name, aadhaar), aadhaar, `"` + born + `"`, name,
		fmt.Sprintf("firstName,aadhaarNumber,dateOfBirth,mobile\n%s1,%s1,%s1,%s1\n\"%[1]s", name, aadhaar, born, mobile),
	}
}

// The server's own errors name rows in their details, and those end nowhere.
func TestPersonalDataOfDatabaseErrors(t *testing.T) {
	t.Parallel()
	d := newDiscreet(t)
	student, etag := d.create(t, d.input)
	one := collection + "/" + student.StudentID
	second, _ := d.create(t, nil)
	for range 2 { // the number belongs to somebody else
		in := validInput()
		in.Mobile = d.secrets[3]
		d.send(http.MethodPost, collection, in)
		d.send(http.MethodPatch, collection+"/"+second.StudentID, map[string]string{"mobile": d.secrets[3]}, "If-Match", `"1"`)
	}
	for _, obstacle := range []string{
		"alter table student add constraint obstacle check (caste <> 'Refused')",
		"alter table student_erased_count add constraint obstacle_of_tallies check (kind <> 'date_of_birth')",
		"create unique index obstacle_of_audit on student_audit ((after ->> 'date_of_birth'), (after ->> 'aadhaar_number')) where after ->> 'caste' = 'Twice'",
	} {
		if _, err := d.pool.Exec(t.Context(), obstacle); err != nil {
			t.Fatal(err)
		}
	}
	in := validInput()
	d.input(&in)
	in.Caste = "Refused"
	wrong := []servertest.Answer{
		d.send(http.MethodPut, one, in, "If-Match", etag),
		d.send(http.MethodPatch, one, `{"caste":"Refused"}`, "If-Match", etag),
		d.send(http.MethodPost, one+"/erasure", map[string]string{"confirm": student.StudentID, "reason": "asked for"}),
	}
	in.Caste = "Twice"
	etag = d.send(http.MethodPut, one, in, "If-Match", etag).Want(http.StatusOK).Header.Get("ETag")
	wrong = append(wrong, d.send(http.MethodPatch, one, `{"moles":"left cheek"}`, "If-Match", etag))
	for _, answer := range wrong {
		answer.Problem(http.StatusInternalServerError, "internal-error")
	}
	d.checkLogsAndMetrics()
	for _, obstacle := range []string{"obstacle_of_audit", "obstacle_of_tallies"} {
		if !strings.Contains(logged.String(), obstacle) {
			t.Errorf("the log does not name %s", obstacle)
		}
	}
	if got := slices.Sorted(maps.Keys(d.refused)); !slices.Equal(got, []int{http.StatusConflict, http.StatusInternalServerError}) {
		t.Errorf("refused with %v", got)
	}
}

func TestRefusalsAreNotStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, path := range []string{collection, changesPath, "/api/v1/nothing", collection + "/x/y/z"} {
		for _, role := range []identity.Role{"", identity.Operator} {
			if answer := f.Do(t, role, http.MethodGet, path, nil); answer.Status < 400 || answer.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("GET %s as %q: %d %v", path, role, answer.Status, answer.Header)
			}
		}
	}
}
