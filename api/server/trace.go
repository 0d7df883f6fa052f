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

// traceOf returns the id of the caller's trace, or begins one where there is none that can be read (W3C Trace Context, section
// 3.2). It leaves the caller as the parent of what is sent on: this process tells no collector of a part of its own.
func traceOf(h http.Header) string {
	if parent := h[traceparentHeader]; len(parent) == 1 && validTraceparent(parent[0]) {
		return parent[0][3:35]
	}
	delete(h, tracestateHeader)
	var text [55]byte
	copy(text[:], "00-")
	putRandom(text[3:35])
	text[35] = '-'
	putRandom(text[36:52])
	copy(text[52:], "-00") // nobody has decided to record it
	begun := string(text[:])
	h[traceparentHeader] = []string{begun}
	return begun[3:35]
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
