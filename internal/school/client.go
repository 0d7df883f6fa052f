package school

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/school-sms/sms/internal/discovery"
)

const (
	settingsPath = "/api/v1/configurations/settings"
	// versionHeader holds the version of all settings.
	versionHeader = "Settings-Version"
	// maxBytes bounds an answer.
	maxBytes = 16 << 20
)

// client asks instances of configuration-service.
type client struct {
	cfg  Config
	http *http.Client
}

func newClient(cfg Config) client {
	// A machine that died answers no probe: found out before the next change has to be known.
	probes := net.KeepAliveConfig{Enable: true, Idle: 2 * time.Second, Interval: time.Second, Count: 2}
	return client{cfg, &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:     (&net.Dialer{Timeout: cfg.Timeout, KeepAliveConfig: probes}).DialContext,
			IdleConnTimeout: 30 * time.Second,
		},
	}}
}

// read asks for the settings as they are now.
func (c client) read(ctx context.Context, address string) (Settings, error) {
	return c.get(ctx, address, "", c.cfg.Timeout)
}

// next asks for settings of a later version, and gets the same again when there is none for a while.
func (c client) next(ctx context.Context, address string, version int64) (Settings, error) {
	return c.get(ctx, address, "?waitForVersion="+strconv.FormatInt(version, 10), c.cfg.Wait+c.cfg.Timeout)
}

func (c client) get(ctx context.Context, address, query string, timeout time.Duration) (Settings, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	token, err := os.ReadFile(c.cfg.TokenFile)
	if err != nil {
		return Settings{}, fmt.Errorf("read the token (SCHOOL_SETTINGS_TOKEN_FILE): %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+settingsPath+query, nil)
	if err != nil {
		return Settings{}, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	res, err := c.http.Do(req)
	if err != nil {
		return Settings{}, err
	}
	defer res.Body.Close()
	body := io.LimitReader(res.Body, maxBytes)
	if res.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, body) // so that the connection can be used again
		return Settings{}, fmt.Errorf("configuration-service answered %d", res.StatusCode)
	}
	return decode(res.Header, body)
}

func decode(header http.Header, body io.Reader) (Settings, error) {
	version, err := strconv.ParseInt(header.Get(versionHeader), 10, 64)
	if err != nil {
		return Settings{}, errors.New("configuration-service does not say which version its settings are: it is an older release")
	}
	var groups map[string][]struct{ Key, Value string }
	if err := json.NewDecoder(body).Decode(&groups); err != nil {
		return Settings{}, fmt.Errorf("decode the settings: %w", err)
	}
	values := Values{}
	for category, group := range groups {
		values[category] = map[string]string{}
		for _, setting := range group {
			values[category][setting.Key] = setting.Value
		}
	}
	settings := From(values)
	settings.Version, settings.Confirmed = version, time.Now()
	return settings, nil
}

// pick chooses an instance that is up, at random, and the one to avoid only when there is no other.
func pick(instances []discovery.Instance, avoid string) (discovery.Instance, error) {
	var others, up []discovery.Instance
	for _, instance := range instances {
		if instance.Status == discovery.StatusUp {
			up = append(up, instance)
			if instance.ID != avoid {
				others = append(others, instance)
			}
		}
	}
	if len(others) > 0 {
		up = others
	}
	if len(up) == 0 {
		return discovery.Instance{}, errors.New("no instance of configuration-service is registered")
	}
	return up[rand.N(len(up))], nil
}
