package standalone

import (
	"context"
	"net/http"

	processtarget "github.com/school-sms/sms/internal/target/process"
)

// Client asks a running `sms up`.
type Client struct{ *processtarget.Caller }

// Dial makes a client; nothing is connected until it is used.
func Dial(socket string) Client { return Client{processtarget.NewCaller(socket)} }

// PlatformStatus reads what runs. It returns processtarget.ErrNotRunning when nobody answers.
func (c Client) PlatformStatus(ctx context.Context) (Status, error) {
	var s Status
	return s, c.Call(ctx, http.MethodGet, "/status", nil, &s)
}
