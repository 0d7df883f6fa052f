package notice

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// newClient makes a client that goes where it is sent and nowhere else.
func newClient() *http.Client {
	return &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// send posts a message once. What comes back is read by nobody; failure says, without the address, why it was not taken, and nothing when
// it was.
func (w Webhook) send(ctx context.Context, client *http.Client, id string, body []byte, timeout time.Duration) (failure string) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return "its url cannot be used"
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "school-sms")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", at)
	if w.Signed() {
		req.Header.Set("Webhook-Signature", sign(w.key, id, at, body))
	}
	res, err := client.Do(req)
	if err != nil {
		return reason(err, timeout)
	}
	res.Body.Close()
	switch {
	case res.StatusCode < 300:
		return ""
	case res.StatusCode < 400:
		return fmt.Sprintf("it answered %d; redirects are not followed", res.StatusCode)
	}
	return fmt.Sprintf("it answered %d", res.StatusCode)
}

// sign is the signature of a message by the Standard Webhooks specification, scheme v1.
func sign(key []byte, id, at string, body []byte) string {
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// reason is why there was no answer. The words of the errors themselves name addresses.
func reason(err error, timeout time.Duration) string {
	if timed, ok := errors.AsType[net.Error](err); ok && timed.Timeout() {
		return fmt.Sprintf("it did not answer within %s", timeout)
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its host is not known"
	}
	_, untrusted := errors.AsType[x509.UnknownAuthorityError](err)
	_, other := errors.AsType[x509.HostnameError](err)
	_, invalid := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case untrusted || other || invalid:
		return "its certificate is not to be trusted"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "it refuses the connection"
	}
	return "it cannot be reached"
}
