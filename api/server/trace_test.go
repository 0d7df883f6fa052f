package server

import (
	"net/http"
	"testing"
)

func TestTraceparent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for name, c := range map[string]struct {
		sent []string
		kept bool
	}{
		"none": {nil, false}, "good": {[]string{good}, true}, "two": {[]string{good, good}, false}, "short": {[]string{good[:54]}, false},
		"upper case":                    {[]string{"00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01"}, false},
		"no trace":                      {[]string{"00-00000000000000000000000000000000-b7ad6b7169203331-01"}, false},
		"no parent":                     {[]string{"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"}, false},
		"forbidden version":             {[]string{"ff" + good[2:]}, false},
		"later version":                 {[]string{"cc" + good[2:] + "-what-will-be"}, true},
		"later version that runs on":    {[]string{"cc" + good[2:] + "0"}, false},
		"more than this version allows": {[]string{good + "-x"}, false},
		"other separators":              {[]string{"00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01"}, false},
	} {
		h := http.Header{"Tracestate": {"a=b"}}
		if c.sent != nil {
			h["Traceparent"] = c.sent
		}
		trace := traceOf(h)
		next := h.Get("Traceparent")
		if len(h["Traceparent"]) != 1 || !validTraceparent(next) || next[3:35] != trace {
			t.Errorf("%s: sends on %q for trace %s", name, h["Traceparent"], trace)
		}
		if kept := trace == good[3:35]; kept != c.kept || kept != (h.Get("Tracestate") != "") || kept != (c.sent != nil && next == c.sent[0]) {
			t.Errorf("%s: sends on %q and tracestate %q", name, next, h.Get("Tracestate"))
		}
	}
}
