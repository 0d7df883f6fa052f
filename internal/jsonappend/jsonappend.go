// Package jsonappend writes JSON by hand where a line or an answer is made so often that encoding/json would cost too much.
package jsonappend

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// String appends what encoding/json, without its escapes for HTML, makes of s.
func String(b []byte, s string) []byte {
	if !plain(s) {
		var escaped bytes.Buffer
		encoder := json.NewEncoder(&escaped)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(s) // every string can be encoded
		return append(b, bytes.TrimSuffix(escaped.Bytes(), []byte("\n"))...)
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// plain reports whether JSON holds s as it is. U+2028 and U+2029, E2 80 A8 and A9 in UTF-8, are escaped because JavaScript once
// took them for line ends.
func plain(s string) bool {
	ascii := true
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == '"' || c == '\\':
			return false
		case c >= utf8.RuneSelf:
			ascii = false
			if c == 0xE2 && i+2 < len(s) && s[i+1] == 0x80 && s[i+2]|1 == 0xA9 {
				return false
			}
		}
	}
	return ascii || utf8.ValidString(s)
}
