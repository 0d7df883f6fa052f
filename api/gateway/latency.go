package gateway

import (
	"math"
	"sync/atomic"
	"time"
)

// began is when the process began. Times are counted from it, because a number fits into one atomic step.
var began = time.Now()

// sinceStart is the time since the process began.
func sinceStart() time.Duration { return time.Since(began) }

// latency is how fast an instance answers: an average in which late answers weigh at once and early ones bit by bit.
//
//   - An answer that is later than the average moves it half the way, but counts for at most eight times the average: a
//     slow instance is known by its second answer, while one request that is slow by its nature does not look like that.
//   - An earlier answer moves it an eighth of the way, or more if it is long since the last one.
//   - What is known fades with a half-life, so that an instance that was slow is tried again. One request tells then: the
//     average itself has been kept.
//
// The zero value knows nothing. It is safe for concurrent use: two answers at one moment may count as one.
type latency struct{ packed atomic.Uint64 } // the average in seconds as a float32, and when it was made in ms

func pack(average float64, now time.Duration) uint64 {
	return uint64(math.Float32bits(float32(average)))<<32 | uint64(uint32(now.Milliseconds()))
}

// unpack returns the average and its age. The milliseconds start anew every 49 days, so only their difference counts.
func unpack(packed uint64, now time.Duration) (average float64, age time.Duration) {
	ms := int32(uint32(now.Milliseconds()) - uint32(packed))
	return float64(math.Float32frombits(uint32(packed >> 32))), time.Duration(max(ms, 0)) * time.Millisecond
}

// observe takes in that an answer at a time took so long.
func (l *latency) observe(now, took, halfLife time.Duration) {
	before := l.packed.Load()
	average, age := unpack(before, now)
	sample := took.Seconds()
	switch {
	case average == 0:
		average = sample
	case sample > average:
		const worst = 8
		average += (min(sample, worst*average) - average) / 2
	default:
		const least = 1. / 8
		average += (sample - average) * max(least, 1-faded(age, halfLife))
	}
	l.packed.CompareAndSwap(before, pack(average, now))
}

// seconds is what the latency counts for at a time.
func (l *latency) seconds(now, halfLife time.Duration) float64 {
	average, age := unpack(l.packed.Load(), now)
	return average * faded(age, halfLife)
}

// seed gives an instance that has answered nothing yet a latency to begin with.
func (l *latency) seed(now time.Duration, seconds float64) {
	l.packed.CompareAndSwap(0, pack(seconds, now))
}

// faded is the part that is left of something after a time.
func faded(age, halfLife time.Duration) float64 {
	const instant = 10 * time.Millisecond // nothing to speak of has faded; saves the work under load
	if age < instant {
		return 1
	}
	return math.Exp2(-float64(age) / float64(halfLife))
}
