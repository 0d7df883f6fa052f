package configuration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

// writes says what a history tells, and checks that each write starts from what the one before left.
func writes[T comparable](t *testing.T, h History[T], value func(T) string) string {
	t.Helper()
	var all []string
	for i, w := range h.Content {
		if w.ChangedBy != "admin" || w.RequestID == "" || w.ChangedAt.IsZero() {
			t.Errorf("write %+v", w)
		}
		if i+1 < len(h.Content) && (w.Before == nil || *w.Before != *h.Content[i+1].After) {
			t.Errorf("version %d was written over %+v, want %+v", w.Version, w.Before, h.Content[i+1].After)
		}
		said := fmt.Sprint(w.Version, " ", w.Action)
		if w.After != nil {
			said += " " + value(*w.After)
		}
		all = append(all, said)
	}
	return strings.Join(all, ", ")
}

func TestHistoryOfASetting(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var made, read Setting
	f.Do(t, identity.Admin, http.MethodPost, settings, `{"category":"GENERAL","key":"MOTTO","value":"a"}`).Want(http.StatusCreated).Decode(&made)
	f.Do(t, identity.Admin, http.MethodPut, path(made), `{"value":"b"}`, "If-Match", `"1"`).Want(http.StatusOK).Decode(&read)
	f.Do(t, identity.Admin, http.MethodDelete, path(made), nil, "If-Match", `"2"`, "X-Request-ID", "the-last").Want(http.StatusNoContent)

	value := func(s Setting) string { return s.Value }
	var whole History[Setting]
	a := f.Do(t, identity.Viewer, http.MethodGet, path(made)+"/history", nil).Want(http.StatusOK).Decode(&whole)
	if got, want := writes(t, whole, value), "3 DELETED, 2 UPDATED b, 1 CREATED a"; got != want || a.Header.Get("Link") != "" {
		t.Errorf("%q, want %q; Link %q", got, want, a.Header.Get("Link"))
	}
	if last := whole.Content[0]; last.RequestID != "the-last" || *last.Before != read || last.After != nil || whole.Content[2].Before != nil {
		t.Errorf("the removal is %+v, of %+v", last, read)
	}
	// Page by page it is the same.
	var paged History[Setting]
	for next := path(made) + "/history?size=1"; next != ""; {
		var page History[Setting]
		a := f.Do(t, identity.Viewer, http.MethodGet, next, nil).Want(http.StatusOK).Decode(&page)
		if len(page.Content) != 1 {
			t.Fatalf("%s: %s", next, a.Body)
		}
		paged.Content = append(paged.Content, page.Content...)
		next, _, _ = strings.Cut(strings.TrimPrefix(a.Header.Get("Link"), "<"), ">")
	}
	if writes(t, paged, value) != writes(t, whole, value) {
		t.Errorf("by pages %+v", paged)
	}

	var none History[Setting]
	f.Do(t, identity.Viewer, http.MethodGet, path(f.find(t, General, "SCHOOL_TIMEZONE"))+"/history", nil).Want(http.StatusOK).Decode(&none)
	if none.Content == nil || len(none.Content) != 0 {
		t.Errorf("a default has been written: %+v", none)
	}
	f.Do(t, identity.Viewer, http.MethodGet, settings+"/999/history", nil).Problem(http.StatusNotFound, "not-found")
	faults := f.Do(t, identity.Viewer, http.MethodGet, settings+"/0/history?size=101&beforeVersion=-1&x=1", nil).
		Faults(http.StatusUnprocessableEntity, "validation-error")
	for _, field := range []string{"settingId", "size", "beforeVersion", "x"} {
		if faults[field] == "" {
			t.Errorf("%s is no fault: %v", field, faults)
		}
	}
}

func TestHistoryOfTheProfile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, name := range []string{"A", "B"} {
		f.Do(t, identity.Admin, http.MethodPut, profile, map[string]string{"schoolName": name, "schoolCode": "S"}, "If-Match", fmt.Sprintf(`"%d"`, i+1)).Want(http.StatusOK)
	}
	var h History[Profile]
	f.Do(t, identity.Viewer, http.MethodGet, profile+"/history", nil).Want(http.StatusOK).Decode(&h)
	if got, want := writes(t, h, func(p Profile) string { return p.SchoolName }), "3 UPDATED B, 2 UPDATED A"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if h.Content[1].Before.SchoolName != "School" || h.Content[1].Before.Version != 1 {
		t.Errorf("the first write was over %+v", h.Content[1].Before)
	}
}
