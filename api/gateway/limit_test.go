package gateway

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// clock is a limiter's time, in a test's hands.
type clock struct{ atomic.Int64 }

func (c *clock) forward(d time.Duration) { c.Add(int64(d)) }

// stopped makes a limiter whose time stands still.
func stopped(rate, burst, clients int) (*limiter, *clock) {
	l, c := newLimiter("user", rate, burst, clients), &clock{}
	c.Store(int64(time.Hour))
	l.now = c.Load
	return l, c
}

// TestNeverMoreThanBurstAndRate looks at every stretch of time between two requests that were let through.
func TestNeverMoreThanBurstAndRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate, burst := rapid.IntRange(1, 3000).Draw(t, "rate"), rapid.IntRange(1, 20).Draw(t, "burst")
		l, now := stopped(rate, burst, 1000)
		admitted := map[uint64][]int64{}
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			pause := rapid.OneOf(rapid.SampledFrom([]int64{0, 1, l.interval - 1, l.interval}), rapid.Int64Range(0, 2*l.interval))
			now.forward(time.Duration(pause.Draw(t, "pause")))
			client := rapid.Uint64Range(0, 2).Draw(t, "client")
			v := l.take(client)
			if v.wait == 0 && rapid.IntRange(0, 9).Draw(t, "good") == 0 {
				l.giveBack(client)
			} else if v.wait == 0 {
				admitted[client] = append(admitted[client], now.Load())
			} else {
				probeRefusal(t, l, now, client, v)
			}
		}
		for client, times := range admitted {
			for i := range times {
				for j := i; j < len(times); j++ {
					passed := float64(times[j]-times[i]) / float64(time.Second)
					if n := j - i + 1; float64(n) > float64(burst)+float64(rate)*passed {
						t.Fatalf("client %d: %d requests in %fs with %d a second and %d at once", client, n, passed, rate, burst)
					}
				}
			}
		}
	})
}

// probeRefusal checks that what a refusal says is true: just before the time it names there is nothing, then there is.
func probeRefusal(t *rapid.T, l *limiter, now *clock, client uint64, v verdict) {
	at := now.Load()
	now.Store(at + int64(v.wait) - 1)
	if early := l.take(client); early.wait != 1 {
		t.Fatalf("1 ns before the time it is refused for %d ns", early.wait)
	}
	now.Store(at + int64(v.wait))
	if l.take(client).wait != 0 {
		t.Fatal("refused at the time that was named")
	}
	l.giveBack(client)
	now.Store(at)
}

func TestWhatRemainsIsTrue(t *testing.T) {
	t.Parallel()
	l, now := stopped(10, 5, 1000)
	h := http.Header{}
	for i, want := range []string{`"user";r=4;t=1`, `"user";r=3;t=1`, `"user";r=2;t=1`, `"user";r=1;t=1`, `"user";r=0;t=1`} {
		v := l.take(7)
		if l.tell(h, v); h.Get("RateLimit") != want || v.remaining != 4-i || h.Get("RateLimit-Policy") != `"user";q=5;w=1` {
			t.Errorf("%v, want %s", h, want)
		}
	}
	if v := l.take(7); v.wait != 100*time.Millisecond {
		t.Errorf("%+v", v)
	}
	now.forward(200 * time.Millisecond)
	if v := l.take(7); v.wait != 0 || v.remaining != 1 {
		t.Errorf("%+v", v)
	}
	large, _ := stopped(1, 10_000, 1000)
	if large.tell(h, large.take(1)); h.Get("RateLimit") != `"user";r=9999;t=1` {
		t.Errorf("%v", h)
	}
	for range 4 {
		large.take(1)
	}
	if large.tell(h, large.take(1)); h.Get("RateLimit") != `"user";r=9994;t=6` || h.Get("RateLimit-Policy") != `"user";q=10000;w=10000` {
		t.Errorf("%v", h)
	}
}

func TestManyAtOnceGetNoMore(t *testing.T) {
	t.Parallel()
	const burst = 100
	l, _ := stopped(1, burst, 1000)
	var admitted atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range burst {
				if l.take(1).wait == 0 {
					admitted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := admitted.Load(); n != burst || l.refused.Load() != 7*burst {
		t.Errorf("%d admitted, %d refused", n, l.refused.Load())
	}
}

// TestManyAddressesTakeNoMemory has an attacker come from ever other addresses.
func TestManyAddressesTakeNoMemory(t *testing.T) {
	t.Parallel()
	const room, burst = 640, 3
	l, now := stopped(1, burst, room)
	for range burst + 1 {
		l.take(1)
	}
	admitted := 0
	for client := range uint64(100 * room) {
		if l.take(client+2).wait == 0 {
			admitted++
		}
	}
	told := 0
	for i := range l.shards {
		told += len(l.shards[i].fullAt)
	}
	if told > room || l.crowded.Load() == 0 {
		t.Errorf("%d clients are told apart, at most %d wanted; %d crowded", told, room, l.crowded.Load())
	}
	if most := room + limiterShards*burst; admitted > most {
		t.Errorf("%d admitted, at most %d wanted", admitted, most)
	}
	if l.take(1).wait == 0 {
		t.Error("one who had used up all got more because others came")
	}
	now.forward(time.Minute)
	if v := l.take(1 << 40); v.wait != 0 || v.remaining != burst-1 {
		t.Errorf("there is no room after all have gone: %+v", v)
	}
}

func TestWhoseLimitItIs(t *testing.T) {
	t.Parallel()
	trusted := Networks{}
	if err := trusted.UnmarshalText([]byte("127.0.0.1, 10.0.0.0/8,fd00::/8")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ peer, forwarded, want string }{
		{"6.6.6.6:1", "", "6.6.6.6"},
		{"6.6.6.6:1", "1.1.1.1", "6.6.6.6"}, // anybody can write that
		{"[::ffff:6.6.6.6]:1", "", "6.6.6.6"},
		{"127.0.0.1:1", "", "127.0.0.1"},
		{"127.0.0.1:1", "1.1.1.1", "1.1.1.1"},
		{"127.0.0.1:1", "9.9.9.9, 1.1.1.1, 10.1.2.3", "1.1.1.1"},
		{"127.0.0.1:1", "9.9.9.9, nonsense, 10.1.2.3", "10.1.2.3"},
		{"[fd00::1]:1", "2001:db8::7", "2001:db8::7"},
		{"127.0.0.1:1", "1.1.1.1|2.2.2.2", "2.2.2.2"}, // two lines
		{"@", "1.1.1.1", "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{}}
		for line := range strings.SplitSeq(c.forwarded, "|") {
			r.Header.Add("X-Forwarded-For", line)
		}
		if got := clientOf(r, trusted).String(); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	seed := maphash.MakeSeed()
	key := func(address string) uint64 { return addressKey(seed, netip.MustParseAddr(address)) }
	if key("2001:db8:0:1::1") != key("2001:db8:0:1:ffff::2") || key("2001:db8:0:1::1") == key("2001:db8:0:2::1") || key("1.2.3.4") == key("1.2.3.5") {
		t.Error("addresses are not told apart as they should be")
	}
}

func TestFaultsOfTheDoorAreNamed(t *testing.T) {
	t.Parallel()
	err := DoorConfig{UserRate: -1, AddressRate: 1, MaxHeaders: -1, LimitedClients: 1,
		CORSOrigins: []string{"https://good.example", "http://localhost:3000", "*", "https://*.example", "https://x.example/", "null", "x.example"}}.Check()
	for _, want := range []string{"GATEWAY_USER_RATE", "_ADDRESS_BURST", "_MAX_HEADERS", `"*"`, `"https://*.example"`, `"https://x.example/"`,
		`"null"`, `"x.example"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if err != nil && (strings.Contains(err.Error(), "good.example") || strings.Contains(err.Error(), "localhost")) {
		t.Error(err)
	}
	if err := (&Networks{}).UnmarshalText([]byte("10.0.0.0/8,home")); err == nil || !strings.Contains(err.Error(), `"home"`) {
		t.Error(err)
	}
}

func BenchmarkLimiter(b *testing.B) {
	for _, users := range []int{1, 1000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			l := newLimiter("user", 1_000_000, 1_000_000, 65536)
			var next atomic.Uint64
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := next.Add(1) * 7919; pb.Next(); i++ {
					l.take(i % uint64(users))
				}
			})
		})
	}
}
