package student

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

// searches maps queries to the numbers of the students that they find.
var searches = map[string]string{
	"sort=createdAt":                        "1 2 3 4 5",
	"":                                      "5 4 3 2 1",
	"firstName=ASH&sort=createdAt,asc":      "1 2",
	"firstName=é&sort=createdAt":            "3",
	"firstName=É&sort=createdAt":            "3",
	"firstName=" + "e\u0301":                "3",
	"firstName=आ":                           "5",
	"firstName=%":                           "",
	"firstName=_sha":                        "",
	"lastName=o'n":                          "4",
	"lastName=patil&sort=firstName":         "1 3",
	"mobile=9876543213":                     "4",
	"studentId=STU-2026-00003":              "3",
	"status=INACTIVE":                       "2",
	"status=ACTIVE&sort=createdAt":          "1 3 4 5",
	"caste=General&sort=dateOfBirth":        "3 1 4",
	"caste=100% caste":                      "5",
	"minAge=18":                             "2",
	"minAge=17&sort=createdAt":              "2 3",
	"maxAge=6&sort=createdAt":               "4 5",
	"minAge=7&maxAge=17&sort=createdAt,asc": "1 3",
	"firstName=a&status=ACTIVE&caste=General&minAge=10": "1",
	"sort=createdAt&size=2":                             "1 2",
	"sort=createdAt&size=2&page=2":                      "5",
	"sort=createdAt&size=2&page=7":                      "",
	"sort=firstName":                                    "1 2 4 3 5", // é is sorted as e is
	"sort=lastName,desc":                                "2 5 3 1 4",
	"sort=status":                                       "1 3 4 5 2",
	"sort=caste,desc":                                   "2 4 3 1 5",
	"firstName=ash&sort=firstName,desc":                 "2 1",
	"firstName=é&sort=firstName":                        "3",
	"q=patl asha":                                       "1",
	"q=élodie":                                          "3",
	"q=ELODIE":                                          "3",
	"q=98765&sort=createdAt":                            "1 2 3 4 5",
	"q=9876543213":                                      "4 5 3 2 1", // the others are one digit away
	"q=9876543231":                                      "4 2",       // swapped, and another digit
	"q=stu-2026-00003":                                  "3",
	"q=STU-2026-0000&sort=createdAt":                    "1 2 3 4 5",
	"q=00004":                                           "4",
	"q=o'neil":                                          "4",
	"q=oneil":                                           "4",
	"q=d o":                                             "",
	"q=आशा":                                             "5",
	"q=आश":                                              "5",
	"q=ash":                                             "2 1",
	"q=asho&sort=createdAt":                             "1 2", // ashok begins with it, asha is a typo away
	"q=asho":                                            "2 1", // and comes after it
	"q=asha&status=INACTIVE":                            "",
	"q=asha ashok":                                      "",
	"q=ravi meera&lastName=o":                           "4",
	"q=~asha":                                           "1",
	"q=asha!!!":                                         "1",
	`q='\` + "`" + ` asha'`:                             "1",
	"q=patil, élodie":                                   "3",
	"q=   ":                                             "5 4 3 2 1",
}

func TestSearch(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i, s := range []struct{ first, last, born, caste string }{
		{"Asha", "Patil", "2016-06-30", "General"},     // 10
		{"ashok", "Rao", "2008-11-23", "Other"},        // 18 today
		{"Élodie", "Patil", "2008-11-24", "General"},   // 17 until tomorrow
		{"Bina", "O'Neil", "2020-01-01", "General"},    // 6
		{"आशा", "Percent", "2020-01-01", "100% caste"}, // 6
	} {
		f.create(t, func(in *Input) {
			in.FirstName, in.LastName, in.DateOfBirth, in.Caste = s.first, s.last, s.born, s.caste
			in.Mobile = fmt.Sprintf("987654321%d", i)
		})
	}
	var rao Student
	f.Do(t, identity.Clerk, http.MethodGet, collection+"/STU-2026-00002", nil).Want(http.StatusOK).Decode(&rao)
	f.Do(t, identity.Clerk, http.MethodDelete, collection+"/"+rao.StudentID, nil, "If-Match", `"1"`).Want(http.StatusNoContent)

	for query, want := range searches {
		t.Run(query, func(t *testing.T) {
			values := url.Values{}
			for pair := range strings.SplitSeq(query, "&") {
				if name, value, ok := strings.Cut(pair, "="); ok {
					values.Set(name, value)
				}
			}
			var page Page
			f.Do(t, identity.Viewer, http.MethodGet, collection+"?"+values.Encode(), nil).Want(http.StatusOK).Decode(&page)
			var got []string
			for _, student := range page.Content {
				got = append(got, strings.TrimLeft(student.StudentID[len("STU-2026-"):], "0"))
			}
			if strings.Join(got, " ") != want {
				t.Errorf("found %v, want %s", got, want)
			}
		})
	}
	var page Page
	f.Do(t, identity.Viewer, http.MethodGet, collection+"?size=2&page=2&sort=createdAt", nil).Want(http.StatusOK).Decode(&page)
	if page.Page != 2 || page.Size != 2 || page.TotalElements != 5 || page.TotalPages != 3 || page.First || !page.Last {
		t.Errorf("page %+v", page)
	}
	answer := f.Do(t, identity.Viewer, http.MethodGet, collection+"?caste=none", nil).Want(http.StatusOK)
	if want := `{"content":[],"page":0,"size":20,"totalElements":0,"totalPages":0,"first":true,"last":true}`; strings.TrimSpace(string(answer.Body)) != want {
		t.Errorf("nothing found is %s", answer.Body)
	}
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var empty, got Statistics
	f.Do(t, identity.Viewer, http.MethodGet, collection+"/statistics", nil).Want(http.StatusOK).Decode(&empty)
	if empty.Total != 0 || empty.AverageAge != 0 || empty.ByCaste == nil || empty.ByAgeBand == nil {
		t.Errorf("of no student: %+v", empty)
	}
	for i, born := range []string{"2023-11-23", "2016-06-30", "2008-11-23", "2008-11-24"} { // 3, 10, 18, 17
		f.create(t, func(in *Input) {
			in.DateOfBirth, in.Mobile, in.Caste = born, fmt.Sprintf("987654321%d", i), []string{"General", "Other"}[i%2]
		})
	}
	f.Do(t, identity.Clerk, http.MethodDelete, collection+"/STU-2026-00003", nil, "If-Match", `"1"`).Want(http.StatusNoContent)
	f.Do(t, identity.Viewer, http.MethodGet, collection+"/statistics", nil).Want(http.StatusOK).Decode(&got)
	if got.Total != 4 || got.Active != 3 || got.Inactive != 1 || got.AverageAge != 12 ||
		!maps.Equal(got.ByAgeBand, map[string]int64{"3-5": 1, "9-11": 1, "15-18": 2}) ||
		!maps.Equal(got.ByCaste, map[string]int64{"General": 2, "Other": 2}) {
		t.Errorf("statistics %+v", got)
	}
}
