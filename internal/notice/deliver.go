package notice

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says who is told, and how patiently.
type Config struct {
	// File lists the webhooks. Empty: nobody is told.
	File File `env:"OPS_WEBHOOKS_FILE"`
	// Interval is the time between two looks for what has happened.
	Interval time.Duration `env:"OPS_WEBHOOKS_INTERVAL" envDefault:"1s"`
	// Timeout bounds one try, from the connection to the answer.
	Timeout time.Duration `env:"OPS_WEBHOOKS_TIMEOUT" envDefault:"10s"`
	// RetryMax is the longest pause between two tries of the same notice; the first is a second, and each is twice the one before.
	RetryMax time.Duration `env:"OPS_WEBHOOKS_RETRY_MAX" envDefault:"5m"`
	// GiveUp is the age at which a notice that a webhook has not taken is dropped.
	GiveUp time.Duration `env:"OPS_WEBHOOKS_GIVE_UP" envDefault:"24h"`
}

const (
	// firstRetry is the pause after the first failure.
	firstRetry = time.Second
	// keep is how long notices are kept, for people who look into ops_db; then nobody is told any more.
	keep = 7 * 24 * time.Hour
	// sweepInterval is the time between two looks for such.
	sweepInterval = time.Hour
	// markWithin bounds a statement. A webhook is held for so long beyond the time that a try may take.
	markWithin = 5 * time.Second
)

// Check names every fault, those of the file too.
func (c Config) Check() error {
	var faults []error
	for setting, d := range map[string]time.Duration{"OPS_WEBHOOKS_INTERVAL": c.Interval, "OPS_WEBHOOKS_TIMEOUT": c.Timeout, "OPS_WEBHOOKS_RETRY_MAX": c.RetryMax} {
		if d < 10*time.Millisecond || d > time.Hour {
			faults = append(faults, fmt.Errorf("%s: %s is not between 10ms and 1h", setting, d))
		}
	}
	if c.GiveUp < time.Second || c.GiveUp > keep {
		faults = append(faults, fmt.Errorf("OPS_WEBHOOKS_GIVE_UP: %s is not between 1s and %s", c.GiveUp, keep))
	}
	if _, err := c.File.Read(); err != nil {
		faults = append(faults, fmt.Errorf("OPS_WEBHOOKS_FILE: %w", err))
	}
	return errors.Join(faults...)
}

// Deliverer tells webhooks. Several may share an ops_db: each webhook is told by one at a time, and one that dies is followed by another
// once its hold has run out. A notice whose try was not marked then is sent again, under the same id.
type Deliverer struct {
	cfg    Config
	store  store
	log    *slog.Logger
	client *http.Client
	// holder is who this is among others, lease how long it holds a webhook from one mark to the next.
	holder string
	lease  time.Duration

	sent, failed, dropped *prometheus.CounterVec

	stop    context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	webhooks []Webhook
	// fault is why the file, or ops_db, cannot be read at present.
	fault     error
	standings []Standing
	busy      map[string]bool
	swept     time.Time
}

// NewDeliverer makes a deliverer that Start sets going.
func NewDeliverer(pool *pgxpool.Pool, cfg Config, log *slog.Logger) (*Deliverer, error) {
	webhooks, err := cfg.File.Read()
	if err != nil {
		return nil, fmt.Errorf("OPS_WEBHOOKS_FILE: %w", err)
	}
	return &Deliverer{cfg: cfg, store: store{pool}, log: log, client: newClient(), holder: rand.Text(), lease: cfg.Timeout + markWithin, webhooks: webhooks, stop: func() {},
		busy: map[string]bool{}, swept: time.Now(),
		sent: counter("sent", "Notices that a webhook took."), failed: counter("failed", "Tries at which a webhook did not take a notice."),
		dropped: counter("dropped", "Notices that nobody tries to tell a webhook any more.")}, nil
}

// Start looks at once, and then at each interval.
func (d *Deliverer) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.running.Go(func() {
		tick := time.NewTicker(d.cfg.Interval)
		defer tick.Stop()
		for {
			d.look(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
}

// Stop ends what is under way, and returns when nothing is. A try that it ends is made again by the next deliverer.
func (d *Deliverer) Stop() {
	d.stop()
	d.running.Wait()
	d.client.CloseIdleConnections()
}

// look begins to tell every webhook for which there is something, unless that is still under way.
func (d *Deliverer) look(ctx context.Context) {
	webhooks, fault := d.cfg.File.Read()
	d.mu.Lock()
	if fault != nil {
		webhooks = d.webhooks // those of before hold
	}
	d.webhooks = webhooks
	sweep := time.Since(d.swept) > sweepInterval
	d.mu.Unlock()
	bounded, cancel := context.WithTimeout(ctx, markWithin)
	defer cancel()
	found, err := d.store.standings(bounded, namesOf(webhooks))
	if err == nil && sweep {
		_, err = d.store.pool.Exec(bounded, deleteNotices, keep)
	}
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		fault = errors.Join(fault, fmt.Errorf("ops_db: %w", err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if (fault == nil) != (d.fault == nil) {
		d.say(fault)
	}
	if d.fault = fault; err != nil {
		return
	}
	d.standings = found
	if sweep {
		d.swept = time.Now()
	}
	for _, s := range found {
		i := slices.IndexFunc(webhooks, func(w Webhook) bool { return w.Name == s.Name })
		if s.Due && !d.busy[s.Name] {
			d.busy[s.Name] = true
			d.running.Go(func() { d.tell(ctx, webhooks[i]) })
		}
	}
}

func (d *Deliverer) say(fault error) {
	if fault != nil {
		d.log.Error("webhooks are not told as they should be", "error", fault.Error())
		return
	}
	d.log.Info("webhooks are told again as they should be")
}

// tell tells one webhook all that there is, until it does not take something.
func (d *Deliverer) tell(ctx context.Context, w Webhook) {
	defer func() {
		d.mu.Lock()
		delete(d.busy, w.Name)
		d.mu.Unlock()
	}()
	told, err := d.store.hold(ctx, w.Name, d.holder, d.lease)
	if errors.Is(err, pgx.ErrNoRows) {
		return // somebody else was faster
	}
	for err == nil {
		var notices []Notice
		if notices, err = d.store.after(ctx, told, d.cfg.GiveUp); err != nil || len(notices) == 0 {
			break
		}
		told, err = d.tellThese(ctx, w, told, notices)
	}
	if errors.Is(err, errFailed) || errors.Is(err, errNotHeld) {
		return // it is not ours any more
	}
	if err != nil && ctx.Err() == nil {
		d.log.Warn("a webhook is told later", "webhook", w.Name, "error", err.Error())
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), markWithin)
	defer cancel()
	_ = d.store.mark(ctx, releaseWebhook, w.Name, d.holder) // else the hold runs out
}

var (
	errNotHeld = errors.New("another instance tells the webhook")
	errFailed  = errors.New("the webhook did not take a notice")
)

// tellThese returns the last notice that the webhook has been told or need not be.
func (d *Deliverer) tellThese(ctx context.Context, w Webhook, told int64, notices []Notice) (int64, error) {
	dropped := 0
	for _, n := range notices {
		switch {
		case !w.wants(n):
		case n.Late:
			dropped++
		default:
			if err := d.try(ctx, w, n); err != nil {
				return told, err
			}
		}
		told = n.ID
	}
	if dropped > 0 {
		d.dropped.WithLabelValues(w.Name).Add(float64(dropped))
		d.log.Error("notices are dropped, because a webhook did not take them in time", "webhook", w.Name, "notices", dropped, "after", d.cfg.GiveUp.String())
	}
	return told, d.store.mark(ctx, markPassed, w.Name, d.holder, told, d.lease)
}

// try sends a notice once and marks what came of it.
func (d *Deliverer) try(ctx context.Context, w Webhook, n Notice) error {
	body, err := n.body()
	if err != nil {
		return fmt.Errorf("encode notice %d: %w", n.ID, err)
	}
	failure := w.send(ctx, d.client, n.messageID(), body, d.cfg.Timeout)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failure == "" {
		d.sent.WithLabelValues(w.Name).Inc()
		return d.store.mark(ctx, markSent, w.Name, d.holder, n.ID, d.lease)
	}
	d.failed.WithLabelValues(w.Name).Inc()
	var failures int
	err = d.store.pool.QueryRow(ctx, markFailed, w.Name, d.holder, failure, n.At, firstRetry, d.cfg.RetryMax).Scan(&failures)
	if errors.Is(err, pgx.ErrNoRows) {
		return errNotHeld
	}
	if failures == 1 {
		d.log.Warn("a webhook does not take a notice, and is tried again", "webhook", w.Name, "reason", failure)
	}
	return errors.Join(err, errFailed)
}

// Names of the webhooks.
func (d *Deliverer) Names() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return namesOf(d.webhooks)
}

func namesOf(webhooks []Webhook) []string {
	names := make([]string, len(webhooks))
	for i, w := range webhooks {
		names[i] = w.Name
	}
	return names
}

// Report is how a webhook is doing.
type Report struct {
	Webhook Webhook
	Standing
}

// Reports are of all webhooks, in the order of the file, as of the last look. The error says why the file, or ops_db, could not be read then.
func (d *Deliverer) Reports() ([]Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	reports := make([]Report, len(d.webhooks))
	for i, w := range d.webhooks {
		reports[i].Webhook = w
		reports[i].Name = w.Name
		for _, s := range d.standings {
			if s.Name == w.Name {
				reports[i].Standing = s
			}
		}
	}
	return reports, d.fault
}

// ErrUnknown says that there is no such webhook.
var ErrUnknown = errors.New("no such webhook")

// Test sends a webhook a notice of nothing, past its queue. failure says why it was not taken.
func (d *Deliverer) Test(ctx context.Context, name, user string) (failure string, err error) {
	d.mu.Lock()
	i := slices.IndexFunc(d.webhooks, func(w Webhook) bool { return w.Name == name })
	if i < 0 {
		d.mu.Unlock()
		return "", ErrUnknown
	}
	w := d.webhooks[i]
	d.mu.Unlock()
	n := Notice{Operation: rand.Text(), Kind: "webhook", Subject: name, State: "test", Summary: "Nothing has happened.", StartedBy: user, At: time.Now()}
	body, err := n.body()
	if err != nil {
		return "", err
	}
	return w.send(ctx, d.client, n.messageID(), body, d.cfg.Timeout), nil
}
