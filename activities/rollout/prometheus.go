package rollout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/school-sms/sms/internal/rollout"
)

// Prometheus is a server that is asked what rules have queries for, and all that is judged by if so configured.
type Prometheus struct {
	// URL of the server, or of another that has its HTTP API. Empty: there is none.
	URL string `env:"PROMETHEUS_URL"`
	// TokenFile holds a bearer token, read at each query. Empty: none is sent.
	TokenFile string `env:"PROMETHEUS_TOKEN_FILE"`
	// ForAllRules has error rates, latencies and memory come from it as well, and not from the gateways and instances themselves.
	ForAllRules bool `env:"PROMETHEUS_FOR_ALL_RULES"`
	// Timeout bounds all queries of one look: below the 10 s within which a watch must say that it is alive.
	Timeout time.Duration `env:"PROMETHEUS_TIMEOUT" envDefault:"3s"`
	// MinWindow is how long a release must have had its share of the traffic before it is asked about: a rate needs two scrapes, and four
	// make it steady. What it has read of an instance longer ago is not judged by. The default is for a scrape each 15 s.
	MinWindow time.Duration `env:"PROMETHEUS_MIN_WINDOW" envDefault:"1m"`
}

const (
	maxPrometheusTimeout = 5 * time.Second
	maxMinWindow         = time.Hour
)

// Check names every fault.
func (p Prometheus) Check() error {
	var faults []error
	if u, err := url.Parse(p.URL); p.URL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil) {
		faults = append(faults, errors.New("PROMETHEUS_URL: want http:// or https:// and a host, and no password: a token goes into PROMETHEUS_TOKEN_FILE"))
	}
	if p.ForAllRules && p.URL == "" {
		faults = append(faults, errors.New("PROMETHEUS_FOR_ALL_RULES: there is none to ask, PROMETHEUS_URL is not set"))
	}
	if p.Timeout <= 0 || p.Timeout > maxPrometheusTimeout {
		faults = append(faults, fmt.Errorf("PROMETHEUS_TIMEOUT: %s is not above 0 and at most %s", p.Timeout, maxPrometheusTimeout))
	}
	if p.MinWindow < time.Second || p.MinWindow > maxMinWindow {
		faults = append(faults, fmt.Errorf("PROMETHEUS_MIN_WINDOW: %s is not between 1s and %s", p.MinWindow, maxMinWindow))
	}
	return errors.Join(faults...)
}

// Query asks what PromQL rules want to know of a window up to now, of both releases and all at once. The answers are by release and rule:
// there is one to each.
func (p Prometheus) Query(ctx context.Context, in WatchInput, window time.Duration) map[string]map[string]rollout.Queried {
	answers := map[string]map[string]rollout.Queried{in.Release: {}, in.Stable: {}}
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	var asking sync.WaitGroup
	var mu sync.Mutex
	for _, rule := range in.Rules {
		if rule.Metric != rollout.PromQL {
			continue
		}
		for release := range answers {
			asking.Go(func() {
				value, err := p.ask(ctx, rule.Ask(in.Environment, in.Service.Service, release, window), window)
				answer := rollout.Queried{Known: err == nil, Value: value}
				if err != nil {
					answer.Why = short(err)
				}
				mu.Lock()
				defer mu.Unlock()
				answers[release][rule.Name] = answer
			})
		}
	}
	asking.Wait()
	return answers
}

// ask returns the one number that a query comes to.
func (p Prometheus) ask(ctx context.Context, query string, window time.Duration) (float64, error) {
	switch {
	case p.URL == "":
		return 0, errors.New("there is no Prometheus to ask: PROMETHEUS_URL is not set")
	case window < p.MinWindow:
		return 0, fmt.Errorf("it has had its share of the traffic for less than %s", p.MinWindow)
	}
	value, err := p.query(ctx, query, prometheus.WithLimit(2))
	if err != nil {
		return 0, err
	}
	return single(value)
}

// query returns what a query comes to. A warning is an error: something may be missing.
func (p Prometheus) query(ctx context.Context, query string, options ...prometheus.Option) (model.Value, error) {
	client, err := api.NewClient(api.Config{Address: p.URL, Client: &http.Client{Transport: bearer(p.TokenFile), CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse // who else may answer is not for the server to say, nor who gets the token
	}}})
	if err != nil {
		return nil, err
	}
	value, warnings, _, err := prometheus.NewAPI(client).Query(ctx, query, time.Time{}, append(options, prometheus.WithTimeout(p.Timeout))...)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("Prometheus did not answer within %s", p.Timeout)
	case err != nil:
		return nil, fmt.Errorf("Prometheus: %w", err)
	case len(warnings) > 0:
		return nil, fmt.Errorf("Prometheus warns: %s", strings.Join(warnings, "; "))
	}
	return value, nil
}

var errUnread = errors.New("Prometheus does not read them, or could not the last time")

// scraped is what an instance measured when it was last read, at most oldest ago. Its label instance is its id in the registry if
// Prometheus has found it there (eureka_sd), and its address if another way.
func (p Prometheus) scraped(ctx context.Context, i instance, oldest time.Duration) (model.Vector, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	of := fmt.Sprintf("instance=~%q", regexp.QuoteMeta(i.id)+"|"+regexp.QuoteMeta(i.address))
	ages, err := p.vector(ctx, fmt.Sprintf("time() - timestamp(%s{%s})", started, of))
	switch {
	case err != nil:
		return nil, err
	case len(ages) == 0:
		return nil, errUnread
	case len(ages) > 1:
		return nil, fmt.Errorf("Prometheus reads them %d times: every request would count as often", len(ages))
	}
	if age := time.Duration(float64(ages[0].Value) * float64(time.Second)); age > oldest {
		return nil, fmt.Errorf("Prometheus has read them %s ago, which is too old", age.Round(time.Millisecond))
	}
	names := strings.Join([]string{started, resident, gatewayAnswers, gatewayTimes + "_(bucket|count)"}, "|")
	samples, err := p.vector(ctx, fmt.Sprintf("{__name__=~%q,%s}", names, of))
	if err == nil && !slices.ContainsFunc(samples, func(s *model.Sample) bool { return name(s) == started }) { // lost since the question before
		err = errUnread
	}
	return samples, err
}

func (p Prometheus) vector(ctx context.Context, query string) (model.Vector, error) {
	value, err := p.query(ctx, query)
	vector, ok := value.(model.Vector)
	if err == nil && !ok {
		err = fmt.Errorf("Prometheus: the query came to a %s, not to a vector", value.Type())
	}
	return vector, err
}

// single is the one number of an answer.
func single(value model.Value) (float64, error) {
	switch v := value.(type) {
	case *model.Scalar:
		return float64(v.Value), nil
	case model.Vector:
		switch {
		case len(v) == 0:
			return 0, errors.New("the query came to nothing")
		case len(v) > 1:
			return 0, errors.New("the query came to several numbers: sum them up, or choose one")
		case v[0].Histogram != nil:
			return 0, errors.New("the query came to a histogram, not to a number")
		}
		return float64(v[0].Value), nil
	}
	return 0, fmt.Errorf("the query came to a %s, not to a number", value.Type())
}

// bearer is the file of the token that requests are sent with; empty: without.
type bearer string

// RoundTrip implements http.RoundTripper.
func (file bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	if file != "" {
		token, err := os.ReadFile(string(file))
		if err != nil {
			return nil, fmt.Errorf("read PROMETHEUS_TOKEN_FILE: %w", err)
		}
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return http.DefaultTransport.RoundTrip(req)
}

// longestReason is how many bytes of what a server says go into records, which are for people.
const longestReason = 300

func short(err error) string {
	text := strings.ToValidUTF8(err.Error(), "")
	if len(text) > longestReason {
		text = strings.ToValidUTF8(text[:longestReason], "") + "…"
	}
	return text
}
