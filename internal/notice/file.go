package notice

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/school-sms/sms/internal/operation"
)

// File lists the webhooks: YAML, a list of Webhook. It is read at each look, so that it may be edited while the platform runs. Empty: there
// are none.
//
// An address can be a secret by itself, as those of chats are, and so can a line of the file be that is at fault: neither is in any error.
type File string

// Webhook is somebody who is told.
type Webhook struct {
	// Name is how logs, metrics, plans and people call it: lower case letters, digits and dashes.
	Name string `yaml:"name"`
	// URL takes a POST.
	URL string `yaml:"url"`
	// SecretFile holds the key that messages are signed with: base64 of 24 to 64 bytes, with or without "whsec_" before it. Empty: they are
	// not signed.
	SecretFile string `yaml:"secretFile"`
	Events     Events `yaml:"events"`

	key []byte
}

// Events say what a webhook is told of.
type Events struct {
	// Kinds of operations. Empty: all.
	Kinds []operation.Kind `yaml:"kinds"`
	// States that operations come to. Empty: all but running.
	States []string `yaml:"states"`
}

// Signed reports whether messages to the webhook are.
func (w Webhook) Signed() bool { return w.key != nil }

// What a filter can name. The states are those of all kinds.
var (
	kinds  = []operation.Kind{operation.Rollout, operation.SmokeTest, operation.Backup, operation.RestoreDrill, operation.Restore, operation.Retention}
	states = []string{operation.Running, operation.Waiting, operation.Succeeded, operation.Failed, operation.Cancelled,
		"rolled-back", "aborted", "superseded", "stored", "verified", "missing", "deleted"}
)

var webhookName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// Limits of a key, in bytes, as the Standard Webhooks specification has them.
const (
	leastKey = 24
	mostKey  = 64
)

// Read names every fault of the file.
func (f File) Read() ([]Webhook, error) {
	if f == "" {
		return nil, nil
	}
	content, err := readSecret(string(f))
	if err != nil {
		return nil, err
	}
	var webhooks []Webhook
	if err := yaml.NewDecoder(bytes.NewReader(content), yaml.DisallowUnknownField()).Decode(&webhooks); err != nil && !errors.Is(err, io.EOF) {
		where := ""
		if fault, ok := errors.AsType[yaml.Error](err); ok && fault.GetToken() != nil {
			where = fmt.Sprintf(" (see line %d)", fault.GetToken().Position.Line)
		}
		return nil, fmt.Errorf("%s is no list of {name, url, secretFile, events: {kinds, states}} in YAML%s", f, where)
	}
	var faults []error
	names := map[string]bool{}
	for i := range webhooks {
		w := &webhooks[i]
		for _, fault := range w.check() {
			faults = append(faults, fmt.Errorf("%s: webhook %d (%q): %w", f, i+1, w.Name, fault))
		}
		if names[w.Name] {
			faults = append(faults, fmt.Errorf("%s: webhook %d (%q): its name is taken", f, i+1, w.Name))
		}
		names[w.Name] = true
	}
	return webhooks, errors.Join(faults...)
}

// check reads the webhook's key, and returns all that is wrong with it.
func (w *Webhook) check() (faults []error) {
	if !webhookName.MatchString(w.Name) {
		faults = append(faults, errors.New("its name is not of 1 to 63 lower case letters, digits and dashes"))
	}
	if u, err := url.Parse(w.URL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		faults = append(faults, errors.New("its url does not begin with https:// or http:// and a host"))
	}
	for _, kind := range w.Events.Kinds {
		if !slices.Contains(kinds, kind) {
			faults = append(faults, fmt.Errorf("the kind %q is none of %v", kind, kinds))
		}
	}
	for _, state := range w.Events.States {
		if !slices.Contains(states, state) {
			faults = append(faults, fmt.Errorf("the state %q is none of %v", state, states))
		}
	}
	if w.SecretFile == "" {
		return faults
	}
	content, err := readSecret(w.SecretFile)
	if err != nil {
		return append(faults, err)
	}
	w.key, err = base64.StdEncoding.DecodeString(strings.TrimPrefix(string(bytes.TrimSpace(content)), "whsec_"))
	if err != nil || len(w.key) < leastKey || len(w.key) > mostKey {
		faults = append(faults, fmt.Errorf("%s does not hold base64 of %d to %d bytes: make one with `openssl rand -base64 32`", w.SecretFile, leastKey, mostKey))
	}
	return faults
}

// readSecret reads a file that is nobody else's to read.
func readSecret(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		return nil, fmt.Errorf("%s holds secrets, and its mode %04o lets everybody on this machine at it: chmod 600 it", path, mode)
	}
	return io.ReadAll(file)
}
