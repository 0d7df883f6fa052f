package gateway

import (
	"fmt"
	"hash/maphash"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// limiter gives each client a bucket of burst requests that fills by rate a second. In any time t a client gets at most
// burst + rate × t, whatever the others do.
//
// A bucket is one number: when it is full again (the generic cell rate algorithm, ITU-T I.371). So a bucket that is full takes
// no memory, and when there are too many that are not, the clients of a shard that come then share one: an attacker with many
// addresses gets no more by that, and takes no more memory.
type limiter struct {
	name             string
	interval         int64 // ns in which one request comes back, rounded up
	tolerance        int64 // ns that a bucket may be from full and still give one
	burst            int
	seed             maphash.Seed
	shards           [limiterShards]limiterShard
	clientsPerShard  int
	now              func() int64               // ns
	policy           []string                   // the header RateLimit-Policy
	remaining        []atomic.Pointer[[]string] // the header RateLimit, by what remains
	refused, crowded atomic.Int64
}

const limiterShards = 64

type limiterShard struct {
	mu     sync.Mutex
	fullAt map[uint64]int64 // ns, by client
	shared int64            // of the clients for which there is no room
	swept  int64
	_      [24]byte // keeps neighbours off a cache line
}

// newLimiter makes a limiter; nil, which limits nothing, when rate is 0.
func newLimiter(name string, rate, burst, clients int) *limiter {
	if rate == 0 {
		return nil
	}
	interval := (int64(time.Second) + int64(rate) - 1) / int64(rate)
	start := time.Now()
	l := &limiter{
		name: name, interval: interval, tolerance: interval * int64(burst-1), burst: burst, seed: maphash.MakeSeed(),
		clientsPerShard: max(1, clients/limiterShards),
		now:             func() int64 { return int64(time.Since(start)) },
		policy:          []string{fmt.Sprintf("%q;q=%d;w=%d", name, burst, seconds(interval*int64(burst)))},
	}
	const mostTexts = 4096 // beyond that, texts are made as they are needed
	l.remaining = make([]atomic.Pointer[[]string], min(burst+1, mostTexts))
	for i := range l.shards {
		l.shards[i].fullAt = map[uint64]int64{}
	}
	return l
}

// seconds rounds up to whole ones.
func seconds(ns int64) int64 { return (ns + int64(time.Second) - 1) / int64(time.Second) }

// verdict is what a limiter says to a request.
type verdict struct {
	// wait is how long until one is allowed again; 0: this one is.
	wait time.Duration
	// remaining is how many more would be allowed right now.
	remaining int
}

// take asks for one request of a client.
func (l *limiter) take(client uint64) verdict {
	now := l.now()
	s := &l.shards[client%limiterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	fullAt, known := s.fullAt[client]
	if !known && len(s.fullAt) >= l.clientsPerShard && !s.sweep(now, l.clientsPerShard, l.interval) {
		l.crowded.Add(1)
		return l.from(now, &s.shared)
	}
	v := l.from(now, &fullAt)
	s.fullAt[client] = fullAt
	return v
}

// from takes a request out of a bucket, if it gives one.
func (l *limiter) from(now int64, fullAt *int64) verdict {
	from := max(*fullAt, now)
	if missing := from - now; missing > l.tolerance {
		l.refused.Add(1)
		return verdict{wait: time.Duration(missing - l.tolerance)}
	}
	*fullAt = from + l.interval
	return verdict{remaining: int((l.tolerance + l.interval - (*fullAt - now)) / l.interval)}
}

// giveBack undoes a take.
func (l *limiter) giveBack(client uint64) {
	s := &l.shards[client%limiterShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if fullAt, known := s.fullAt[client]; known {
		s.fullAt[client] = fullAt - l.interval
	}
}

// sweep forgets buckets that are full, and reports whether there is room then. It looks at most once in the time in which
// something may have changed.
func (s *limiterShard) sweep(now int64, room int, interval int64) bool {
	const pause = int64(50 * time.Millisecond)
	if s.swept != 0 && now-s.swept < max(pause, interval) {
		return false
	}
	s.swept = now
	left := map[uint64]int64{} // a new one: a map keeps the room that it once took
	for client, fullAt := range s.fullAt {
		if fullAt > now {
			left[client] = fullAt
		}
	}
	s.fullAt = left
	return len(left) < room
}

// tell puts the headers of the draft draft-ietf-httpapi-ratelimit-headers-10 on an answer.
func (l *limiter) tell(h http.Header, v verdict) {
	h["Ratelimit-Policy"] = l.policy
	h["Ratelimit"] = l.text(v)
}

// text is the value of RateLimit: what remains, and in how many seconds all is there again. For a refused request the latter is
// when the next is allowed.
func (l *limiter) text(v verdict) []string {
	if v.wait > 0 {
		return []string{l.format(0, seconds(int64(v.wait)))}
	}
	reset := seconds(int64(l.burst-v.remaining) * l.interval)
	if v.remaining >= len(l.remaining) {
		return []string{l.format(v.remaining, reset)}
	}
	made := l.remaining[v.remaining].Load()
	if made == nil {
		made = &[]string{l.format(v.remaining, reset)}
		l.remaining[v.remaining].Store(made)
	}
	return *made
}

func (l *limiter) format(remaining int, reset int64) string {
	text := append(make([]byte, 0, 48), '"')
	text = append(append(text, l.name...), `";r=`...)
	text = append(strconv.AppendInt(text, int64(remaining), 10), ";t="...)
	return string(strconv.AppendInt(text, reset, 10))
}
