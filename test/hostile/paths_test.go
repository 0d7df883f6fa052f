package hostile

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/school-sms/sms/internal/identity"
)

// TestPaths asks for paths that one reader could take for another than the next does.
func TestPaths(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, nil)
	token := "Authorization: " + p.bearer(identity.Admin)
	for i, path := range []string{
		"/api/v1/students//MARK", "//api/v1/students/MARK", "/api//v1/students/MARK", "///MARK", "//other/api/v1/students/MARK", "/api/v1/students/MARK//",
		"/api/v1/students/./MARK", "/./api/v1/students/MARK", "/api/v1/students/x/../MARK", "/api/v1/students/../students/MARK", "/api/v1/students/MARK/..",
		"/actuator/../api/v1/students/MARK", "/api/v1/students/MARK/.", "/api/v1/students/.../MARK", "/api/v1/students/MARK/....",
		"/api/v1/students/%2e%2e/MARK", "/api/v1/students/%2E%2E/MARK", "/api/v1/students/.%2e/MARK", "/api/v1/students/%2e/MARK", "/api/v1/students/MARK%2e",
		"/api/v1/students/MARK%2f..", "/api/v1/students%2fMARK", "/api/v1%2Fstudents/MARK", "/%2fapi/v1/students/MARK", "/api/v1/students/..%2fMARK",
		"/api/v1/students/MARK;a=b", "/api/v1/students;/MARK", "/api;v=1/v1/students/MARK", "/api/v1/students/..;/MARK", "/api/v1/students/MARK%3ba=b",
		`/api/v1/students\MARK`, `/api/v1/students/..\MARK`, "/api/v1/students/%5cMARK", "/api/v1/students%5C..%5CMARK", `\api\v1\students\MARK`,
		"/api/v1/students/MARK%00", "/api/v1/students%00/MARK", "/api/v1/students/MARK%00.json", "/api/v1/students/\x00MARK",
		"/api/v1/students/%252e%252e/MARK", "/api/v1/students/MARK%25", "/api/v1/students/%25%32%65/MARK", "/api/v1/students/MARK%2500",
		"/api/v1/students/%c0%ae%c0%ae/MARK", "/api/v1/students/%c0%afMARK", "/api/v1/students/%e0%80%afMARK", "/api/v1/students/%f0%80%80%afMARK",
		"/api/v1/students/MARK%ff",
		"/api/v1/students/\xc0\xae\xc0\xae/MARK", "/api/v1/students/\xffMARK", "/api/v1/students/%ed%a0%80MARK",
		"/api/v1/students/MARK%0d%0aX:y", "/api/v1/students/MARK%0a", "/api/v1/students/MARK%09", "/api/v1/students/MARK%7f", "/api/v1/students/MARK%1b",
		"/api/v1/students/MARK%u002e", "/api/v1/students/MARK%", "/api/v1/students/MARK%2", "/api/v1/students/MARK%zz",
		"/api/v1/student%73/MARK", "/%61pi/v1/students/MARK", "/api/%76%31/students/MARK", "/api/v1/students/STU%2d1-MARK",
		"/api/v1/students./MARK", "/api/v1/students../MARK", "/api./v1/students/MARK", "/api/v1/students%20/MARK", "/api/v1/students%09/MARK",
		"/API/v1/students/MARK", "/api/V1/students/MARK", "/api/v1/Students/MARK", "/api/v1/studentsMARK", "/api/v1/students-MARK", "/api/v2/students/MARK",
		"http://sms/api/v1/students/MARK", "http://127.0.0.1/api/v1/students/MARK", "https://sms:1@other/api/v1/students/MARK", "http:/api/v1/students/MARK",
		"http:api/v1/students/MARK", "*", "*/api/v1/students/MARK", "", "?MARK", "api/v1/students/MARK",
		"./api/v1/students/MARK", "#MARK", "/#MARK", "/api/v1/students/MARK x",
		"/actuator/MARK", "/api/v1/registry/MARK", "/eureka/MARK", "/registry/MARK", "/",
	} {
		t.Run(strconv.Quote(path), func(t *testing.T) {
			t.Parallel()
			mark := "path-" + strconv.Itoa(i) + "-"
			a := send(t, p.gateway, lines("GET "+strings.ReplaceAll(path, "MARK", mark)+" HTTP/1.1", "Host: sms", token, "Connection: close"))
			if !slices.Contains([]int{400, 404, 405}, a.first()) || len(a.status) != 1 || !a.closed {
				t.Errorf("answered %v: %q", a.status, a.bodies)
			}
			if p.service.sawBytes(mark) {
				t.Error("it came through")
			}
		})
	}
	for _, path := range []string{"/STU-2026-00001", "/a%20b", "/%E0%A4%AE", "/x.json", "/..x", "/x..y", "/a+b", "/a:b@c", "/~x", "/?q=a/../b%3bc"} {
		a := send(t, p.gateway, get(path, token))
		if got := p.service.got(students + path); !slices.Equal(a.status, []int{200}) || len(got) != 1 {
			t.Errorf("an honest path, %s: %v, came %d times as it was sent", path, a.status, len(got))
		}
	}
}
