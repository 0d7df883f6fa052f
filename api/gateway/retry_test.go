package gateway

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/school-sms/sms/internal/identity"
	"github.com/school-sms/sms/internal/settings"
)

// TestWhatIsTriedAgain has two instances fail in each way: reads are tried again where that may help, and what might have
// been done is never sent twice.
func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	unavailable := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	slowBehind := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGatewayTimeout) }
	for _, c := range []struct {
		name   string
		fail   http.HandlerFunc
		again  bool // for reads
		status int
	}{
		{"500", answer500, true, 500}, {"503", unavailable, true, 503}, {"breaks off", breakOff, true, 502},
		{"504", slowBehind, false, 504}, {"timeout", hang, false, 504},
	} {
		cfg := testConfig
		cfg.EjectAfter, cfg.RetryBudgetPercent, cfg.ResponseHeaderTimeout = 1_000_000, 100, 200*time.Millisecond
		p := newPlatform(t, cfg, "production")
		var asked atomic.Int64
		fail := func(w http.ResponseWriter, r *http.Request) { asked.Add(1); c.fail(w, r) }
		p.students(nil, newBackend(t, "1", "r", fail), newBackend(t, "2", "r", fail))
		for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} {
			asked.Store(0)
			got := p.do(identity.Clerk, method, "/api/v1/students/STU-2026-00001", "")
			if n := asked.Load(); got.status != c.status || (n > 1) != (c.again && isRead(method)) || n > int64(1+cfg.Retries) {
				t.Errorf("%s, %s: answered %d after %d tries", c.name, method, got.status, n)
			}
		}
	}
}

func TestUpstreamConfigIsChecked(t *testing.T) {
	t.Parallel()
	if _, err := settings.From[Config](nil); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	wrong := map[string]string{
		"GATEWAY_SEND_IDLE_TIMEOUT": "0s", "GATEWAY_EXCHANGE_IDLE_TIMEOUT": "30s", "GATEWAY_MAX_WAITING": "-1",
		"GATEWAY_RETRY_BUDGET_PERCENT": "101", "GATEWAY_RETRY_BUDGET_MIN": "-1", "GATEWAY_RETRY_BUDGET_WINDOW": "2m",
		"GATEWAY_SLOW_START": "-1s", "GATEWAY_LATENCY_HALF_LIFE": "0s", "GATEWAY_EJECT_AFTER": "0", "GATEWAY_TRIALS": "0",
		"GATEWAY_MAX_EJECTED_PERCENT": "-1", "GATEWAY_EJECT_TIME": "1m",
	}
	_, err := settings.From[Config](wrong)
	for name := range wrong {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named: %v", name, err)
		}
	}
}
