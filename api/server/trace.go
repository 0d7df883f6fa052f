package server

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// As net/http spells them.
const (
	traceparentHeader = "Traceparent"
	tracestateHeader  = "Tracestate"
)

// continueTrace makes this process a part of the caller's trace, or begins one where there is none that can be read (W3C Trace
// Context, section 3.2): what is sent on names this request as the parent. It returns the trace and this part of it, in hex.
func continueTrace(h http.Header) (trace, span string) {
	const parentAt, flagsAt = 36, 53
	var text [55]byte
	if parent := h[traceparentHeader]; len(parent) == 1 && validTraceparent(parent[0]) {
		copy(text[:], parent[0])
		copy(text[:], "00")
	} else {
		delete(h, tracestateHeader)
		copy(text[:], "00-")
		putRandom(text[3:35])
		text[35] = '-'
		copy(text[flagsAt-1:], "-00") // nobody has decided to record it
	}
	putRandom(text[parentAt : parentAt+16])
	next := string(text[:])
	h[traceparentHeader] = []string{next}
	return next[3:35], next[parentAt : parentAt+16]
}

// putRandom fills text with hex digits that are not all zero, sixteen at a time.
func putRandom(text []byte) {
	for ; len(text) > 0; text = text[16:] {
		var number [8]byte
		binary.BigEndian.PutUint64(number[:], rand.Uint64()|1)
		hex.Encode(text, number[:])
	}
}

// validTraceparent reports whether a header can be read: version 00, or a later one that begins like it.
func validTraceparent(s string) bool {
	const length = 55
	if len(s) < length || s[2] != '-' || s[35] != '-' || s[52] != '-' || s[:2] == "ff" {
		return false
	}
	if len(s) > length && (s[:2] == "00" || s[length] != '-') {
		return false
	}
	return isHex(s[:2]) && isHex(s[3:35]) && isHex(s[36:52]) && isHex(s[53:55]) &&
		strings.Trim(s[3:35], "0") != "" && strings.Trim(s[36:52], "0") != ""
}

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
