package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/school-sms/sms/internal/standalone"
)

// globals are what every command takes.
type globals struct {
	// server is the URL of the production gateway.
	server string
	// tokenFile holds the token that is sent; empty: the admin's in the data directory.
	tokenFile string
	dataDir   string
	// output is table or json.
	output string
}

const (
	outputTable = "table"
	outputJSON  = "json"

	defaultServer  = "http://127.0.0.1:8080"
	requestTimeout = 15 * time.Second
)

// bind adds the flags that every command takes.
func (g *globals) bind(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&g.server, "server", os.Getenv("SMS_SERVER"),
		"URL of the production gateway (SMS_SERVER; default: that of the platform on this machine, else "+defaultServer+")")
	flags.StringVar(&g.tokenFile, "token-file", os.Getenv("SMS_TOKEN_FILE"),
		"file with the token to send (SMS_TOKEN_FILE; default: the admin's, in the data directory)")
	flags.StringVar(&g.dataDir, "data-dir", standalone.DefaultDataDir(), "data directory of the platform on this machine (SMS_DATA_DIR)")
	flags.StringVarP(&g.output, "output", "o", outputTable, "what to print: table or json")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if g.output != outputTable && g.output != outputJSON {
			return usageError{fmt.Errorf("--output %s: want table or json", g.output)}
		}
		var err error
		g.dataDir, err = filepath.Abs(g.dataDir)
		return err
	}
}

func orDefault(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// problemError is an answer of the platform that is an error (RFC 9457).
type problemError struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Errors []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
	RequestID string `json:"requestId"`
}

// Error is one sentence, and a line for each fault.
func (p *problemError) Error() string {
	var b strings.Builder
	b.WriteString(orDefault(p.Detail, p.Title))
	for _, fault := range p.Errors {
		b.WriteString("\n  - ")
		if fault.Field != "" {
			b.WriteString(fault.Field + ": ")
		}
		b.WriteString(fault.Detail)
	}
	if p.Status >= http.StatusInternalServerError && p.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", p.RequestID)
	}
	return b.String()
}

// awayError says that nobody answered.
type awayError struct{ error }

// away reports whether an error may pass when the platform comes back.
func away(err error) bool {
	if _, ok := errors.AsType[awayError](err); ok {
		return true
	}
	if problem, ok := errors.AsType[*problemError](err); ok {
		switch problem.Status {
		case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true
		}
	}
	return false
}

// call makes one request of the platform's REST interface. in and out may be nil. The error is a *problemError, an
// awayError, or about this machine.
func (g *globals) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(raw)
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	res, err := g.send(ctx, method, path, body, http.Header{"Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	defer res.Body.Close()
	from := res.Request.URL
	return readAnswer(res, from.Scheme+"://"+from.Host, out)
}

// send makes a request and returns its answer, whatever it is. The error is an awayError, or about this machine.
func (g *globals) send(ctx context.Context, method, path string, body io.Reader, header http.Header) (*http.Response, error) {
	token, err := g.token()
	if err != nil {
		return nil, err
	}
	server := g.gateway(ctx)
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(server, "/")+path, body)
	if err != nil {
		return nil, usageError{fmt.Errorf("--server %s: not a URL", server)}
	}
	req.Header = header
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, awayError{fmt.Errorf("no answer from %s: %w", server, rootCause(err))}
	}
	return res, nil
}

// gateway is the URL to ask: the one that was named, else that of the platform of the data directory, once it is known.
func (g *globals) gateway(ctx context.Context) string {
	if g.server == "" {
		status, err := standalone.Dial(standalone.Layout{Root: g.dataDir}.Socket()).PlatformStatus(ctx)
		if err != nil {
			return defaultServer
		}
		g.server = status.URLs["gateway"]
	}
	return g.server
}

func readAnswer(res *http.Response, server string, out any) error {
	const most = 16 << 20
	raw, err := io.ReadAll(io.LimitReader(res.Body, most))
	if err != nil {
		return awayError{fmt.Errorf("the answer of %s broke off: %w", server, err)}
	}
	if res.StatusCode >= http.StatusBadRequest {
		problem := &problemError{Status: res.StatusCode, Title: res.Status}
		_ = json.Unmarshal(raw, problem) // what is no problem details keeps the status line
		return problem
	}
	if out == nil || len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s answered what this program cannot read: is it the gateway of this platform, of this version?", server)
	}
	return nil
}

// rootCause leaves out what the URL says already.
func rootCause(err error) error {
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		return operation.Err
	}
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// token is read at each request: it may be renewed while a command waits.
func (g *globals) token() (string, error) {
	file := orDefault(g.tokenFile, standalone.Layout{Root: g.dataDir}.AdminToken())
	raw, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the token: %w; name its file with --token-file, or the platform's data directory with --data-dir", err)
	}
	return strings.TrimSpace(string(raw)), nil
}
