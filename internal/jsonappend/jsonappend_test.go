package jsonappend

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "Asha Patil", "<a&b>", `"\`, "\x00\b\f\n\r\t\x1f\x7f", "\u2027\u2028\u2029\u202a", "क्\u200dष", "\xff", "a\xe2\x80", "\xe2\x80\xa8\xe2",
		"\U0001f600", "\xed\xa0\x80", "ÿ\u00e2\u0080"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		encoder := json.NewEncoder(&want)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := string(String([]byte("x"), s)) + "\n"; got != "x"+want.String() {
			t.Errorf("%q gives %s, want %s", s, got[1:], want.String())
		}
	})
}
