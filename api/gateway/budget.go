package gateway

import (
	"sync"
	"sync/atomic"
	"time"
)

// budgetParts is into how many parts the window of a budget is cut. The window moves by a part at a time.
const budgetParts = 10

// budget keeps further tries in proportion to requests: when everything fails, what reaches the instances must not be
// a multiple of what callers sent. Within any window of the configured length there are at most min further tries and
// percent for each hundred requests. One request and one try are counted in the part of the window that they fall in.
//
// A request costs one atomic addition; only who wants a further try takes the lock.
type budget struct {
	percent, min int64
	part         time.Duration
	requests     [budgetParts]atomic.Uint64 // number of the part, and what was counted in it

	mu      sync.Mutex
	tries   [budgetParts]uint64
	refused atomic.Int64
}

func newBudget(cfg UpstreamConfig) *budget {
	return &budget{percent: int64(cfg.RetryBudgetPercent), min: int64(cfg.RetryBudgetMin), part: cfg.RetryBudgetWindow / budgetParts}
}

// A cell holds the number of a part in its upper half and a count in its lower half, so that both change in one step.
const cellCount = 1<<32 - 1

// request counts one request. Now is a time since the process began, as everywhere in this file.
func (b *budget) request(now time.Duration) {
	number := uint64(now/b.part) + 1 // so that an unused cell belongs to none
	cell := &b.requests[number%budgetParts]
	for {
		seen := cell.Load()
		if seen>>32 >= number { // above it: somebody came in between, with a later time
			cell.Add(1)
			return
		}
		if cell.CompareAndSwap(seen, number<<32|1) {
			return
		}
	}
}

// take asks for one further try, and reports whether there may be one.
func (b *budget) take(now time.Duration) bool {
	number := uint64(now/b.part) + 1
	b.mu.Lock()
	defer b.mu.Unlock()
	var requests, tries int64
	for i := range b.requests {
		requests += inWindow(b.requests[i].Load(), number)
		tries += inWindow(b.tries[i], number)
	}
	if (tries+1)*100 > b.min*100+requests*b.percent {
		b.refused.Add(1)
		return false
	}
	cell := &b.tries[number%budgetParts]
	if *cell>>32 < number {
		*cell = number << 32
	}
	*cell++
	return true
}

// inWindow is the count of a cell if it belongs to the window that ends with a part.
func inWindow(cell, number uint64) int64 {
	if cell>>32+budgetParts <= number {
		return 0
	}
	return int64(cell & cellCount)
}
