package gateway

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/school-sms/sms/api/server/plain"
)

// readHead reads the head of a plain answer, as nearly all are: one of HTTP/1.1 that has come in one piece, with a final status that
// allows a body, one Content-Length, no chunks, and a header that plain.Fields takes. Nil: it is something else, and nothing has
// been read. What it returns is what http.ReadResponse would, but it copies the head once, and reads no line twice.
func readHead(in *bufio.Reader, req *http.Request) *http.Response {
	come, _ := in.Peek(in.Buffered()) // has no error for what is there
	end := bytes.Index(come, []byte("\r\n\r\n"))
	if end < 0 || req.Method == http.MethodHead {
		return nil
	}
	line, fields, _ := strings.Cut(string(come[:end+2]), "\r\n")
	status, code := readStatus(line)
	if code < http.StatusOK || code == http.StatusNoContent || code == http.StatusNotModified {
		return nil
	}
	header, ok := plain.Fields(fields)
	if !ok {
		return nil
	}
	length, ok := readLength(header["Content-Length"])
	if !ok {
		return nil
	}
	_, _ = in.Discard(end + 4) // it is there
	res := &http.Response{Status: status, StatusCode: code, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: header,
		Body: http.NoBody, ContentLength: length, Request: req}
	if length > 0 {
		res.Body = &sizedBody{in, length}
	}
	return res
}

// readStatus reads a status line; 0 when it is not plain.
func readStatus(line string) (status string, code int) {
	const proto, digits = "HTTP/1.1 ", 3
	status, ok := strings.CutPrefix(line, proto)
	if !ok || len(status) <= digits || status[digits] != ' ' || !plain.Printable(status) {
		return "", 0
	}
	number, err := strconv.ParseUint(status[:digits], 10, 16)
	if err != nil {
		return "", 0
	}
	return status, int(number)
}

// readLength takes one length, of digits.
func readLength(values []string) (length int64, ok bool) {
	if len(values) != 1 {
		return 0, false
	}
	n, err := strconv.ParseUint(values[0], 10, 63)
	return int64(n), err == nil
}

// sizedBody is a body whose length was said.
type sizedBody struct {
	in   *bufio.Reader
	left int64
}

func (b *sizedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	switch b.left -= int64(n); {
	case b.left == 0:
		err = io.EOF
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Close is for whoever keeps the connection.
func (b *sizedBody) Close() error { return nil }
